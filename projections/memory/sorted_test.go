package memory

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSortedEqualsASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sorted
		want := map[int64]bool{}
		bound := rapid.SampledFrom([]int64{10, 3000, 1 << 40}).Draw(t, "bound")
		for _, id := range rapid.SliceOfN(rapid.Int64Range(1, bound), 0, 3000).Draw(t, "ids") {
			if id%3 == 0 {
				s.remove(id - 1)
				delete(want, id-1)
			}
			s.add(id)
			want[id] = true
		}
		ids := make([]int64, 0, len(want))
		for id := range want {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		if got := slices.Concat(s.chunks...); !slices.Equal(got, ids) {
			t.Fatalf("holds %d ids, want %d", len(got), len(ids))
		}
		after, limit := rapid.Int64Range(0, bound).Draw(t, "after"), rapid.IntRange(1, 2000).Draw(t, "limit")
		at, found := slices.BinarySearch(ids, after)
		if found {
			at++
		}
		if got, page := s.above(after, limit), ids[at:min(len(ids), at+limit)]; !slices.Equal(got, page) {
			t.Fatalf("above %d: %v, want %v", after, got, page)
		}
	})
}

func TestSortedIsDenseForRisingIDs(t *testing.T) {
	var s sorted
	for id := range int64(100_000) {
		s.add(id + 1)
	}
	if n := len(s.chunks); n > 100_000/(chunkSize-1)+1 {
		t.Errorf("%d chunks", n)
	}
}
