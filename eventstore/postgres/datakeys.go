package postgres

import (
	"context"

	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// MakeDataKeys implements [eventstore.DataKeys].
func (s *Store) MakeDataKeys(ctx context.Context, keys map[int64][]byte) error {
	var p queries.MakeDataKeysParams
	for account, key := range keys {
		p.Accounts, p.Keys = append(p.Accounts, account), append(p.Keys, key)
	}
	if err := s.q.MakeDataKeys(ctx, p); err != nil {
		return failure(ctx, "make data keys", err)
	}
	return nil
}

// DataKeys implements [eventstore.DataKeys].
func (s *Store) DataKeys(ctx context.Context, accounts []int64) (map[int64][]byte, error) {
	rows, err := s.q.DataKeys(ctx, accounts)
	if err != nil {
		return nil, failure(ctx, "read data keys", err)
	}
	keys := make(map[int64][]byte, len(rows))
	for _, r := range rows {
		keys[r.Account] = r.Key
	}
	return keys, nil
}

// EraseDataKey implements [eventstore.DataKeys].
func (s *Store) EraseDataKey(ctx context.Context, account int64) error {
	if err := s.q.EraseDataKey(ctx, account); err != nil {
		return failure(ctx, "erase a data key", err)
	}
	return nil
}
