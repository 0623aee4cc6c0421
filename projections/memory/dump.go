package memory

import (
	"context"
	"maps"

	"github.com/tunnox-net/tunnox/projections"
)

// Dump implements [projections.Dumper].
func (s *Store) Dump(ctx context.Context) (projections.Dump, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return projections.Dump{}, errNone
	}
	d := projections.Dump{Rows: maps.Clone(s.active.rows), Members: map[projections.Member]struct{}{}}
	for index, ids := range s.active.indexes {
		for _, chunk := range ids.chunks {
			for _, id := range chunk {
				d.Members[projections.Member{Index: index, ID: id}] = struct{}{}
			}
		}
	}
	return d, ctx.Err()
}

// Spelt implements [projections.Dumper].
func (s *Store) Spelt(index string) string { return index }
