package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Each is a statement of its own, so that the head is locked only for the time of a
// flush, as for an append.
const (
	// lockHead needs what every append needs: a server that accepts writes, the lock,
	// and a flushed commit.
	lockHead = "SELECT FROM es.head WHERE id = 1 FOR NO KEY UPDATE"
	// allocate writes 256 KiB into files of the database and frees them again. A full
	// disk refuses to make tables longer, while the write-ahead log may still have
	// room.
	allocate = "CREATE TEMPORARY TABLE tunnox_room ON COMMIT DROP AS SELECT repeat('x', 1900) FROM generate_series(1, 128)"
)

// CanAppend reports why an append would fail now. It writes nothing into the log and
// costs about as much as an append.
func (s *Store) CanAppend(ctx context.Context) error {
	for _, statement := range []string{lockHead, allocate} {
		if _, err := s.pool.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			return failure(ctx, "try whether the log can be written", err)
		}
	}
	return nil
}
