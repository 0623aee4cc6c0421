package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	driver "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// AppendSeal extends the tree. It gives [eventstore.ErrSealed] when the tree is not at
// seal.Before any more.
func (s *Store) AppendSeal(ctx context.Context, seal eventstore.Seal) error {
	return s.writeAlone(ctx, "extend the tree", func() error {
		err := s.write.InsertSeal(ctx, sealRow(seal))
		if e, ok := errors.AsType[*driver.Error](err); ok && e.Code()&0xff == sqlitelib.SQLITE_CONSTRAINT {
			return eventstore.ErrSealed
		}
		return err
	})
}

func sealRow(seal eventstore.Seal) queries.InsertSealParams {
	return queries.InsertSealParams{Size: seal.Size, Before: seal.Before, FirstHash: seal.FirstHash,
		Hashes: seal.Hashes, Note: seal.Note, SealedAt: seal.SealedAt.UnixMicro()}
}

// writeAlone writes on the only connection that writes.
func (s *Store) writeAlone(ctx context.Context, doing string, write func() error) error {
	if s.readOnly {
		return errReadOnly
	}
	select {
	case <-s.writing:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	case <-s.done:
		return fmt.Errorf("%w: the log is closed", eventstore.ErrUnavailable)
	}
	defer func() { s.writing <- struct{}{} }()
	err := write()
	if err == nil || errors.Is(err, eventstore.ErrSealed) {
		return err
	}
	return failure(ctx, doing, err)
}

// LastSeal gives the newest seal without its hashes; ok is false when there is none.
func (s *Store) LastSeal(ctx context.Context) (seal eventstore.Seal, ok bool, err error) {
	row, err := s.read.LastSeal(ctx)
	found, err := rowFound(err)
	if err != nil {
		return seal, false, failure(ctx, "read the last checkpoint", err)
	}
	if !found {
		return seal, false, nil
	}
	return eventstore.Seal{Before: row.Before, Size: row.Size, Note: row.Note, SealedAt: time.UnixMicro(row.SealedAt).UTC()}, true, nil
}

// Seals gives up to limit seals with a size above after, with their hashes.
func (s *Store) Seals(ctx context.Context, after int64, limit int) ([]eventstore.Seal, error) {
	seals, err := readSeals(ctx, s.read, after, limit)
	if err != nil {
		return nil, failure(ctx, "read the checkpoints", err)
	}
	return seals, nil
}

func readSeals(ctx context.Context, q *queries.Queries, after int64, limit int) ([]eventstore.Seal, error) {
	rows, err := q.Seals(ctx, queries.SealsParams{Size: after, Limit: int64(limit)})
	if err != nil {
		return nil, err
	}
	seals := make([]eventstore.Seal, len(rows))
	for i, r := range rows {
		seals[i] = eventstore.Seal{Before: r.Before, Size: r.Size, FirstHash: r.FirstHash, Hashes: r.Hashes, Note: r.Note,
			SealedAt: time.UnixMicro(r.SealedAt).UTC()}
	}
	return seals, nil
}

// TreeHashes gives stored hashes by their numbers.
func (s *Store) TreeHashes(ctx context.Context, numbers []int64) ([][32]byte, error) {
	hashes := make([][32]byte, len(numbers))
	for i, n := range numbers {
		hash, err := s.read.TreeHash(ctx, n)
		if _, err := rowFound(err); err != nil {
			return nil, failure(ctx, "read hashes of the tree", err)
		}
		if len(hash) != len(hashes[i]) {
			return nil, fmt.Errorf("eventstore: the tree has no hash %d", n)
		}
		copy(hashes[i][:], hash)
	}
	return hashes, nil
}
