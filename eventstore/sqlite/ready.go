package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tunnox-net/tunnox/eventstore"
)

// room is how much space the disk must have left for the log to count as writable: some
// hundred appends.
const room = 256 << 10

// CanAppend reports why an append would fail now. It commits a change to a number in
// the file that nobody reads, and writes some bytes beside the file. Nothing of this is
// in the log.
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
	if err := allocate(s.path + "-room"); err != nil {
		return fmt.Errorf("%w: %s: %w", eventstore.ErrUnavailable, doing, err)
	}
	s.tried = 1 - s.tried // the same number again would not be written
	if _, err := s.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", s.tried)); err != nil {
		return failure(ctx, doing, err)
	}
	return nil
}

// allocate writes a file and removes it. SQLite has reserved space in its write-ahead
// file, and would notice a full disk late.
func allocate(path string) (err error) {
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
