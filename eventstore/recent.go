package eventstore

import (
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	recentRecords = 4096    // kept at most
	recentBytes   = 8 << 20 // of their data, about
)

// Recent keeps the newest records that a process has appended. What was appended
// is read at once by all that follow the log there: the relay, the projector,
// the reader. Stores of this module answer them from here, so that the database
// is not asked three times for what it was just given. The zero value is ready.
type Recent struct {
	mu      sync.Mutex
	records []domain.Record // guarded by mu; without holes
	bytes   int             // guarded by mu
}

// Add takes the records of an append. Records that do not follow those that are
// kept replace them: others appended in between, or the log is another.
func (r *Recent) Add(records []domain.Record) {
	if len(records) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.records); n > 0 && records[0].Position != r.records[n-1].Position+1 {
		r.records, r.bytes = nil, 0
	}
	for i := range records {
		r.bytes += len(records[i].Data)
	}
	r.records = append(r.records, records...)
	drop := 0
	for len(r.records)-drop > recentRecords || r.bytes > recentBytes {
		r.bytes -= len(r.records[drop].Data)
		r.records[drop] = domain.Record{} // or its data would live as long as the array
		drop++
	}
	r.records = r.records[drop:]
}

// After gives up to limit records behind a position, if they are all kept that a
// reader of the log would get, whose end is known to be at or beyond reached.
func (r *Recent) After(after domain.Position, limit int, reached domain.Position) ([]domain.Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 || limit <= 0 {
		return nil, false
	}
	first, last := r.records[0].Position, r.records[len(r.records)-1].Position
	if after+1 < first || after >= last {
		return nil, false
	}
	found := r.records[after+1-first:]
	if len(found) < limit && last < reached {
		return nil, false
	}
	return append([]domain.Record(nil), found[:min(len(found), limit)]...), true
}

// Newest gives the place of the newest record that is kept, which the log had.
func (r *Recent) Newest() domain.Place {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 {
		return domain.Place{}
	}
	return domain.PlaceOf(r.records[len(r.records)-1])
}

// Forget forgets all records: the log was taken back.
func (r *Recent) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records, r.bytes = nil, 0
}
