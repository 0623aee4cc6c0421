package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// ReadStream implements [eventstore.Store].
func (s *Store) ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	rows, err := s.q.ReadStream(ctx, queries.ReadStreamParams{Stream: string(stream), After: int64(after), Count: int32(limit)})
	if err != nil {
		return nil, failure(ctx, "read event stream "+string(stream), err)
	}
	records := make([]domain.Record, len(rows))
	for i, row := range rows {
		if records[i], err = record(queries.ReadAllRow(row)); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// ReadAll implements [eventstore.Store].
func (s *Store) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	if records, ok := s.recent.After(after, limit, s.signal.Reached()); ok {
		return records, ctx.Err()
	}
	rows, err := s.q.ReadAll(ctx, queries.ReadAllParams{After: int64(after), Count: int32(limit)})
	if err != nil {
		return nil, failure(ctx, "read the log", err)
	}
	records := make([]domain.Record, len(rows))
	for i, row := range rows {
		if records[i], err = record(row); err != nil {
			return nil, err
		}
	}
	return records, eventstore.CheckDense(after, records)
}

// Leaves gives up to limit leaves with a position above after, for an audit.
func (s *Store) Leaves(ctx context.Context, after domain.Position, limit int) ([]eventstore.Leaf, error) {
	rows, err := s.q.ReadLeaves(ctx, queries.ReadLeavesParams{After: int64(after), Count: int32(limit)})
	if err != nil {
		return nil, failure(ctx, "read the leaves of the log", err)
	}
	leaves := make([]eventstore.Leaf, len(rows))
	for i, r := range rows {
		rec := domain.Record{Stream: domain.StreamID(r.Stream), Version: domain.Version(r.Version), Owner: r.Owner,
			Name: r.Name, Schema: int(r.Schema), ID: r.EventID, Data: r.Data}
		leaves[i] = eventstore.Leaf{Position: domain.Position(r.Position), Hash: [32]byte(r.LeafHash), Content: eventstore.LeafContent(rec, r.Meta, r.RecordedAt.UnixMicro())}
	}
	return leaves, nil
}

func record(row queries.ReadAllRow) (domain.Record, error) {
	meta, err := eventstore.DecodeMeta(domain.Position(row.Position), string(row.Meta))
	return domain.Record{
		Position: domain.Position(row.Position), Stream: domain.StreamID(row.Stream), Version: domain.Version(row.Version),
		Owner: row.Owner, Name: row.Name, Schema: int(row.Schema), ID: row.EventID,
		Data: row.Data, Meta: meta, Recorded: row.RecordedAt.UTC(),
	}, err
}

// Head implements [eventstore.Store].
func (s *Store) Head(ctx context.Context) (eventstore.Checkpoint, error) {
	row, err := s.q.Head(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, failure(ctx, "read the head of the log", err)
	}
	s.signal.Raise(domain.Position(row.Position)) // so that the caller can read up to it
	return eventstore.Checkpoint{Position: domain.Position(row.Position), EventID: row.EventID}, nil
}

// Verify implements [eventstore.Store].
func (s *Store) Verify(ctx context.Context, c eventstore.Checkpoint) error {
	if c.Position == 0 {
		return nil
	}
	id, err := s.q.EventID(ctx, int64(c.Position))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: position %d is beyond its end", eventstore.ErrForked, c.Position)
	case err != nil:
		return failure(ctx, "verify a checkpoint", err)
	case id != c.EventID:
		return fmt.Errorf("%w: position %d holds another record", eventstore.ErrForked, c.Position)
	}
	return nil
}

// KeyUse implements [eventstore.Store].
func (s *Store) KeyUse(ctx context.Context, scope, key string) (eventstore.KeyUse, bool, error) {
	row, err := s.q.KeyUse(ctx, queries.KeyUseParams{Scope: scope, Key: key})
	if errors.Is(err, pgx.ErrNoRows) {
		return eventstore.KeyUse{}, false, nil
	}
	if err != nil {
		return eventstore.KeyUse{}, false, failure(ctx, "look for an idempotency key", err)
	}
	use := eventstore.KeyUse{First: domain.Position(row.FirstPosition), Last: domain.Position(row.LastPosition), Subject: domain.StreamID(row.Subject)}
	copy(use.Hash[:], row.Hash)
	return use, true, nil
}

// Holder implements [eventstore.Store].
func (s *Store) Holder(ctx context.Context, scope, value string) (domain.StreamID, error) {
	owner, err := s.q.Claim(ctx, queries.ClaimParams{Scope: scope, Value: value})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", failure(ctx, "look for the holder of a claim", err)
	}
	return domain.StreamID(owner), nil
}

// Nudge makes all waiters ask the database at once: another process says that it has
// appended.
func (s *Store) Nudge() { s.signal.Nudge() }

// Reached gives the end of the log as far as this process knows it.
func (s *Store) Reached() domain.Position { return s.signal.Reached() }

// Wait implements [eventstore.Store].
func (s *Store) Wait(ctx context.Context, after domain.Position) error {
	return s.signal.Wait(ctx, after, s.done, func(ctx context.Context) (domain.Position, error) {
		p, err := s.q.Position(ctx)
		if err != nil {
			return 0, failure(ctx, "read the head of the log", err)
		}
		return domain.Position(p), nil
	})
}
