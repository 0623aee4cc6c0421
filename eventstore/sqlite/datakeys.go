package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// MakeDataKeys implements [eventstore.DataKeys], with one flush.
func (s *Store) MakeDataKeys(ctx context.Context, keys map[int64][]byte) error {
	return s.writeAlone(ctx, "make data keys", func() (err error) {
		tx, err := s.writer.BeginTx(ctx, nil) // immediate
		if err != nil {
			return err
		}
		defer func() {
			if e := tx.Rollback(); !errors.Is(e, sql.ErrTxDone) {
				err = errors.Join(err, e)
			}
		}()
		q := s.write.WithTx(tx)
		for account, key := range keys {
			if err := q.MakeDataKey(ctx, queries.MakeDataKeyParams{Account: account, Key: key}); err != nil {
				return err
			}
		}
		return tx.Commit()
	})
}

// DataKeys implements [eventstore.DataKeys].
func (s *Store) DataKeys(ctx context.Context, accounts []int64) (map[int64][]byte, error) {
	keys := make(map[int64][]byte, len(accounts))
	for _, account := range accounts {
		key, err := s.read.DataKey(ctx, account)
		found, err := rowFound(err)
		if err != nil {
			return nil, failure(ctx, "read data keys", err)
		}
		if found {
			keys[account] = key
		}
	}
	return keys, nil
}

// EraseDataKey implements [eventstore.DataKeys]. The page with the key is
// overwritten (secure_delete), and so is its copy in the write-ahead log once
// that is moved into the file.
func (s *Store) EraseDataKey(ctx context.Context, account int64) error {
	return s.writeAlone(ctx, "erase a data key", func() error {
		if err := s.write.EraseDataKey(ctx, account); err != nil {
			return err
		}
		_, err := s.writer.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
		return err
	})
}
