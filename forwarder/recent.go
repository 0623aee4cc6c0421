package forwarder

import (
	"slices"

	"github.com/tunnox-net/tunnox/domain"
)

// Bounds of the recent records. A lookup takes milliseconds, and this is seconds of the
// feed at its fastest.
const (
	maxRecentRecords = 1024
	maxRecentBytes   = 4 << 20
)

// recent keeps the last records of the feed, so that a view that was read at a slightly
// older position can be brought up to date without another lookup. It is bounded
// whatever the feed brings.
type recent struct {
	records []domain.Record
	floor   domain.Position // every record above it is here
	bytes   int
}

// restart drops everything; the feed continues after p.
func (r *recent) restart(p domain.Position) { *r = recent{floor: p} }

func (r *recent) push(record domain.Record) {
	r.records = append(r.records, record)
	r.bytes += len(record.Data)
	for len(r.records) > maxRecentRecords || r.bytes > maxRecentBytes {
		r.floor = r.records[0].Position
		r.bytes -= len(r.records[0].Data)
		r.records[0] = domain.Record{} // the slice's array lives longer than the element
		r.records = r.records[1:]
	}
}

// covers reports whether after(p) is complete.
func (r *recent) covers(p domain.Position) bool { return p >= r.floor }

// after gives the records above p, in order.
func (r *recent) after(p domain.Position) []domain.Record {
	i, _ := slices.BinarySearchFunc(r.records, p+1, func(rec domain.Record, p domain.Position) int {
		return int(rec.Position - p)
	})
	return r.records[i:]
}
