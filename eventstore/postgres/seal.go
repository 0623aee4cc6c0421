package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// AppendSeal extends the tree. It gives [eventstore.ErrSealed] when the tree is not at
// seal.Before any more.
func (s *Store) AppendSeal(ctx context.Context, seal eventstore.Seal) error {
	n, err := s.q.AppendSeal(ctx, queries.AppendSealParams{Size: seal.Size, Before: seal.Before, FirstHash: seal.FirstHash,
		Hashes: seal.Hashes, Note: seal.Note, SealedAt: seal.SealedAt})
	if otherState(err) || err == nil && n == 0 {
		return eventstore.ErrSealed
	}
	if err != nil {
		return failure(ctx, "extend the tree", err)
	}
	return nil
}

// LastSeal gives the newest seal without its hashes; ok is false when there is none.
func (s *Store) LastSeal(ctx context.Context) (seal eventstore.Seal, ok bool, err error) {
	row, err := s.q.LastSeal(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return seal, false, nil
	}
	if err != nil {
		return seal, false, failure(ctx, "read the last checkpoint", err)
	}
	return eventstore.Seal{Before: row.Before, Size: row.Size, Note: row.Note, SealedAt: row.SealedAt.UTC()}, true, nil
}

// Seals gives up to limit seals with a size above after, with their hashes.
func (s *Store) Seals(ctx context.Context, after int64, limit int) ([]eventstore.Seal, error) {
	seals, err := readSeals(ctx, s.q, after, limit)
	if err != nil {
		return nil, failure(ctx, "read the checkpoints", err)
	}
	return seals, nil
}

func readSeals(ctx context.Context, q *queries.Queries, after int64, limit int) ([]eventstore.Seal, error) {
	rows, err := q.Seals(ctx, queries.SealsParams{After: after, Count: int32(limit)})
	if err != nil {
		return nil, err
	}
	seals := make([]eventstore.Seal, len(rows))
	for i, r := range rows {
		seals[i] = eventstore.Seal{Before: r.Before, Size: r.Size, FirstHash: r.FirstHash, Hashes: r.Hashes, Note: r.Note, SealedAt: r.SealedAt.UTC()}
	}
	return seals, nil
}

// TreeHashes gives stored hashes by their numbers.
func (s *Store) TreeHashes(ctx context.Context, numbers []int64) ([][32]byte, error) {
	rows, err := s.q.TreeHashes(ctx, numbers)
	if err != nil {
		return nil, failure(ctx, "read hashes of the tree", err)
	}
	hashes := make([][32]byte, len(rows))
	for i, row := range rows {
		if len(row) != len(hashes[i]) {
			return nil, fmt.Errorf("eventstore: the tree has no hash %d", numbers[i])
		}
		copy(hashes[i][:], row)
	}
	return hashes, nil
}
