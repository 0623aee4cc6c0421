package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Both are statements of their own, so that the head is locked for the time of a
// flush, as it is by an append.
const (
	// takeHead needs what every append needs: a server that takes writes, the lock,
	// and a commit that is flushed.
	takeHead = "SELECT FROM es.head WHERE id = 1 FOR NO KEY UPDATE"
	// takeRoom writes 256 KiB into the files of the database and gives them back:
	// the disk that is full refuses to make tables longer, while the write-ahead log
	// may still have room.
	takeRoom = "CREATE TEMPORARY TABLE tunnox_room ON COMMIT DROP AS SELECT repeat('x', 1900) FROM generate_series(1, 128)"
)

// CanAppend reports why an append would fail now, if it would. It writes nothing
// into the log and costs about what an append does.
func (s *Store) CanAppend(ctx context.Context) error {
	for _, statement := range []string{takeHead, takeRoom} {
		if _, err := s.pool.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			return failure(ctx, "try whether the log can be written", err)
		}
	}
	return nil
}
