package eventstore_test

import (
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// numbered gives records at the positions from from to to.
func numbered(from, to domain.Position, size int) (records []domain.Record) {
	for p := from; p <= to; p++ {
		records = append(records, domain.Record{Position: p, Data: make([]byte, size)})
	}
	return records
}

func TestRecent(t *testing.T) {
	var r eventstore.Recent
	want := func(after domain.Position, limit int, reached domain.Position, first, last domain.Position) {
		t.Helper()
		got, ok := r.After(after, limit, reached)
		if ok != (first > 0) || ok && (got[0].Position != first || got[len(got)-1].Position != last || len(got) != int(last-first+1)) {
			t.Errorf("after %d, at most %d, log at %d: %d records, %v, want %d..%d", after, limit, reached, len(got), ok, first, last)
		}
	}
	want(0, 10, 0, 0, 0)
	r.Add(numbered(5, 7, 1))
	r.Add(numbered(8, 9, 1))
	want(4, 10, 9, 5, 9)
	want(3, 10, 9, 0, 0) // 4 is not kept
	want(6, 2, 9, 7, 8)
	want(9, 10, 9, 0, 0) // there may be more
	want(6, 2, 20, 7, 8)
	want(6, 10, 20, 0, 0) // there is more

	r.Add(numbered(12, 13, 1)) // others wrote 10 and 11
	want(8, 10, 13, 0, 0)
	want(11, 10, 13, 12, 13)
	r.Add(numbered(12, 12, 1)) // another log
	want(11, 10, 12, 12, 12)

	for p := domain.Position(13); p < 20_000; p += 100 {
		r.Add(numbered(p, p+99, 1))
	}
	want(20_012-4096, 1<<20, 0, 20_013-4096, 20_012)
	want(20_012-4097, 10, 0, 0, 0)
	for p := domain.Position(20_013); p < 20_100; p++ {
		r.Add(numbered(p, p, 1<<20))
	}
	want(20_099-8, 10, 0, 20_092, 20_099)
	want(20_099-10, 10, 0, 0, 0)
	r.Add(numbered(20_100, 20_100, 9<<20)) // larger than everything that is kept
	want(20_099, 10, 0, 0, 0)
	r.Add(numbered(20_101, 20_101, 1))
	want(20_100, 10, 0, 20_101, 20_101)
}
