package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// ReadStream implements [eventstore.Store].
func (s *Store) ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	rows, err := s.read.ReadStream(ctx, queries.ReadStreamParams{Stream: string(stream), Version: int64(after), Limit: int64(limit)})
	if err != nil {
		return nil, failure(ctx, "read event stream "+string(stream), err)
	}
	records := make([]domain.Record, len(rows))
	for i := range rows {
		row := queries.ReadAllRow(rows[i])
		if records[i], err = record(&row); err != nil {
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
	records := make([]domain.Record, 0, max(0, min(limit, int(s.signal.Reached()-after))))
	var broken error // a record that cannot be read, not an error of the database
	err := s.read.EachRecord(ctx, queries.ReadAllParams{Position: int64(after), Limit: int64(limit)}, func(row *queries.ReadAllRow) error {
		var r domain.Record
		if r, broken = record(row); broken != nil {
			return broken
		}
		records = append(records, r)
		return nil
	})
	if broken != nil {
		return nil, broken
	}
	if err != nil {
		return nil, failure(ctx, "read the log", err)
	}
	return records, eventstore.CheckDense(after, records)
}

// Leaves gives up to limit leaves with a position above after, for an audit.
func (s *Store) Leaves(ctx context.Context, after domain.Position, limit int) ([]eventstore.Leaf, error) {
	rows, err := s.read.ReadLeaves(ctx, queries.ReadLeavesParams{Position: int64(after), Limit: int64(limit)})
	if err != nil {
		return nil, failure(ctx, "read the leaves of the log", err)
	}
	leaves := make([]eventstore.Leaf, len(rows))
	for i, r := range rows {
		rec := domain.Record{Stream: domain.StreamID(r.Stream), Version: domain.Version(r.Version), Owner: r.Owner,
			Name: r.Name, Schema: int(r.Schema), ID: domain.EventID(r.EventID), Data: []byte(r.Data)}
		leaves[i] = eventstore.Leaf{Position: domain.Position(r.Position), Hash: [32]byte(r.LeafHash),
			Content: eventstore.LeafContent(rec, []byte(r.Meta), r.RecordedAt)}
	}
	return leaves, nil
}

func record(row *queries.ReadAllRow) (domain.Record, error) {
	if len(row.EventID) != len(domain.EventID{}) {
		return domain.Record{}, fmt.Errorf("eventstore: record %d has an event id of %d bytes", row.Position, len(row.EventID))
	}
	meta, err := eventstore.DecodeMeta(domain.Position(row.Position), row.Meta)
	return domain.Record{
		Position: domain.Position(row.Position), Stream: domain.StreamID(row.Stream), Version: domain.Version(row.Version),
		Owner: row.Owner, Name: row.Name, Schema: int(row.Schema), ID: domain.EventID(row.EventID),
		Data: []byte(row.Data), Meta: meta, Recorded: time.UnixMicro(row.RecordedAt).UTC(),
	}, err
}

// Head implements [eventstore.Store].
func (s *Store) Head(ctx context.Context) (eventstore.Checkpoint, error) {
	row, err := s.read.Head(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, failure(ctx, "read the head of the log", err)
	}
	c := eventstore.Checkpoint{Position: domain.Position(row.Position)}
	copy(c.EventID[:], row.EventID)
	return c, nil
}

// Verify implements [eventstore.Store].
func (s *Store) Verify(ctx context.Context, c eventstore.Checkpoint) error {
	if c.Position == 0 {
		return nil
	}
	id, err := s.read.EventID(ctx, int64(c.Position))
	found, err := rowFound(err)
	switch {
	case err != nil:
		return failure(ctx, "verify a checkpoint", err)
	case !found:
		return fmt.Errorf("%w: position %d is beyond its end", eventstore.ErrForked, c.Position)
	case string(id) != string(c.EventID[:]):
		return fmt.Errorf("%w: position %d holds another record", eventstore.ErrForked, c.Position)
	}
	return nil
}

// KeyUse implements [eventstore.Store].
func (s *Store) KeyUse(ctx context.Context, scope, key string) (eventstore.KeyUse, bool, error) {
	use, found, err := keyUse(ctx, s.read, scope, key)
	if err != nil {
		return use, false, failure(ctx, "look for an idempotency key", err)
	}
	return use, found, nil
}

// Holder implements [eventstore.Store].
func (s *Store) Holder(ctx context.Context, scope, value string) (domain.StreamID, error) {
	owner, err := s.read.Claim(ctx, queries.ClaimParams{Scope: scope, Value: value})
	if found, err := rowFound(err); !found && err == nil {
		return "", nil
	}
	if err != nil {
		return "", failure(ctx, "look for the holder of a claim", err)
	}
	return domain.StreamID(owner), nil
}

// Wait implements [eventstore.Store]. There is no polling: this process is the
// only one that appends.
func (s *Store) Wait(ctx context.Context, after domain.Position) error {
	return s.signal.Wait(ctx, after, s.done, nil)
}
