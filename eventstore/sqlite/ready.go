package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tunnox-net/tunnox/eventstore"
)

// room is how much the disk must have left for the log to be called writable: some
// hundred appends.
const room = 256 << 10

// CanAppend reports why an append would fail now, if it would: it commits a change
// to a number in the file that nobody reads, and writes some bytes beside it. The
// log has nothing of it.
func (s *Store) CanAppend(ctx context.Context) error {
	if s.readOnly {
		return errReadOnly
	}
	const doing = "try whether the log can be written"
	select {
	case <-s.writing:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	case <-s.done:
		return fmt.Errorf("%w: the log is closed", eventstore.ErrUnavailable)
	}
	defer func() { s.writing <- struct{}{} }()
	if err := takeRoom(s.path + "-room"); err != nil {
		return fmt.Errorf("%w: %s: %w", eventstore.ErrUnavailable, doing, err)
	}
	s.tried = 1 - s.tried // a change to what it is would not be written
	if _, err := s.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", s.tried)); err != nil {
		return failure(ctx, doing, err)
	}
	return nil
}

// takeRoom writes a file and removes it: SQLite has room of its own in the file it
// writes ahead, and would find out late.
func takeRoom(path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := f.Write(make([]byte, room)); err != nil {
		return err
	}
	return f.Sync()
}
