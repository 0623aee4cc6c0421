package memory

import (
	"slices"
	"sort"
)

// chunkSize bounds how many ids move when one is added in the middle.
const chunkSize = 512

// sorted is a rising list of ids in chunks. Ids rise or, for anonymous clients, are
// random. A plain slice would move megabytes for each random id when there are a
// million.
type sorted struct{ chunks [][]int64 }

// chunk gives the index of the chunk that has id, or would have it.
func (s *sorted) chunk(id int64) int {
	i := sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i][0] > id })
	return max(i-1, 0)
}

func (s *sorted) add(id int64) {
	if len(s.chunks) == 0 {
		s.chunks = [][]int64{{id}}
		return
	}
	i := s.chunk(id)
	at, found := slices.BinarySearch(s.chunks[i], id)
	if found {
		return
	}
	c := slices.Insert(s.chunks[i], at, id)
	s.chunks[i] = c
	if len(c) < chunkSize {
		return
	}
	// Rising ids fill the last chunk: leave it nearly full, so that lists are dense.
	cut := len(c) / 2
	if i == len(s.chunks)-1 {
		cut = len(c) - 1
	}
	rest := slices.Clone(c[cut:])
	s.chunks[i] = slices.Clip(c[:cut])
	s.chunks = slices.Insert(s.chunks, i+1, rest)
}

func (s *sorted) remove(id int64) {
	if len(s.chunks) == 0 {
		return
	}
	i := s.chunk(id)
	at, found := slices.BinarySearch(s.chunks[i], id)
	if !found {
		return
	}
	if s.chunks[i] = slices.Delete(s.chunks[i], at, at+1); len(s.chunks[i]) == 0 {
		s.chunks = slices.Delete(s.chunks, i, i+1)
	}
}

func (s *sorted) empty() bool { return len(s.chunks) == 0 }

// above gives up to limit ids greater than after.
func (s *sorted) above(after int64, limit int) []int64 {
	var ids []int64
	for i := s.chunk(after); i < len(s.chunks) && len(ids) < limit; i++ {
		c := s.chunks[i]
		at, found := slices.BinarySearch(c, after)
		if found {
			at++
		}
		ids = append(ids, c[at:min(len(c), at+limit-len(ids))]...)
	}
	return ids
}
