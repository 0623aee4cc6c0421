package eventstore

import (
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	recentRecords = 4096    // the most that are kept
	recentBytes   = 8 << 20 // of their data, approximately
)

// Recent keeps the newest records that a process has appended. Appended records are
// read at once by all that follow the log in this process: the relay, the projector,
// the reader. The stores of this module answer them from here, so that the database is
// not asked three times for records that it has just stored. The zero value is ready.
type Recent struct {
	mu      sync.Mutex
	records []domain.Record // guarded by mu; without holes
	bytes   int             // guarded by mu
}

// Add adds the records of an append. Records that do not follow those that are kept
// replace them: others have appended in between, or it is another log.
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
		r.records[drop] = domain.Record{} // otherwise its data would live as long as the array
		drop++
	}
	r.records = r.records[drop:]
}

// After gives up to limit records after a position. ok is false unless all records are
// kept that a reader of the log would get. The end of the log is known to be at reached
// or beyond.
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

// Newest gives the place of the newest record that is kept, which was in the log.
func (r *Recent) Newest() domain.Place {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 {
		return domain.Place{}
	}
	return domain.PlaceOf(r.records[len(r.records)-1])
}

// Forget drops all records: the log was rolled back.
func (r *Recent) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records, r.bytes = nil, 0
}
