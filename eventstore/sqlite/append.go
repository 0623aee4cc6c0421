package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// AppendBatch implements [eventstore.Store]: one transaction, one flush.
func (s *Store) AppendBatch(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	if s.readOnly {
		return nil, errReadOnly
	}
	select {
	case <-s.writing:
	case <-ctx.Done():
		return nil, fmt.Errorf("append: %w", context.Cause(ctx))
	case <-s.done:
		return nil, fmt.Errorf("%w: the log is closed", eventstore.ErrUnavailable)
	}
	defer func() { s.writing <- struct{}{} }()
	results, err := s.append(ctx, batch)
	if err != nil {
		return nil, failure(ctx, "append", err)
	}
	for _, r := range results {
		s.recent.Add(r.Records)
	}
	s.signal.Raise(s.position)
	return results, nil
}

func (s *Store) append(ctx context.Context, batch []eventstore.Append) (_ []eventstore.Result, err error) {
	tx, err := s.writer.BeginTx(ctx, nil) // immediate
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// After a failed commit there is nothing to roll back.
			if e := tx.Rollback(); !errors.Is(e, sql.ErrTxDone) {
				err = errors.Join(err, e)
			}
		}
	}()
	q := s.write.WithTx(tx)
	state, err := readState(ctx, q, batch)
	if err != nil {
		return nil, err
	}
	plan := eventstore.NewPlan(state, batch)
	recorded := eventstore.RecordedNow()
	if next := s.recorded.Add(time.Microsecond); recorded.Before(next) {
		recorded = next // the clock was set back
	}
	if len(plan.Rows) == 0 {
		return plan.Results(0, recorded), tx.Rollback()
	}
	p, err := q.Position(ctx)
	if err != nil {
		return nil, err
	}
	results := plan.Results(domain.Position(p), recorded)
	if err := writePlan(ctx, q, plan, domain.Position(p), recorded.UnixMicro()); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	s.position, s.recorded = domain.Position(p)+domain.Position(len(plan.Rows)), recorded
	return results, nil
}

func readState(ctx context.Context, q *queries.Queries, batch []eventstore.Append) (eventstore.State, error) {
	state := eventstore.State{
		Streams: map[domain.StreamID]eventstore.StreamState{},
		Claims:  map[eventstore.ClaimName]domain.StreamID{},
		Keys:    map[eventstore.KeyName]eventstore.KeyUse{},
	}
	looked := map[any]bool{} // includes those that were not found
	for _, a := range batch {
		for _, stream := range a.Streams {
			if looked[stream.Stream] {
				continue
			}
			looked[stream.Stream] = true
			row, err := q.Stream(ctx, string(stream.Stream))
			if found, err := rowFound(err); err != nil {
				return state, err
			} else if found {
				state.Streams[stream.Stream] = eventstore.StreamState{Version: domain.Version(row.Version), Closed: row.Closed}
			}
		}
		for _, list := range [][]domain.Claim{a.Releases, a.Claims} {
			for _, c := range list {
				name := eventstore.ClaimName{Scope: c.Scope, Value: c.Value}
				if looked[name] {
					continue
				}
				looked[name] = true
				owner, err := q.Claim(ctx, queries.ClaimParams{Scope: c.Scope, Value: c.Value})
				if found, err := rowFound(err); err != nil {
					return state, err
				} else if found {
					state.Claims[name] = domain.StreamID(owner)
				}
			}
		}
		if a.Key != "" {
			use, found, err := keyUse(ctx, q, a.KeyScope, a.Key)
			if err != nil {
				return state, err
			}
			if found {
				state.Keys[eventstore.KeyName{Scope: a.KeyScope, Key: a.Key}] = use
			}
		}
	}
	return state, nil
}

// rowFound tells a missing row from a failure.
func rowFound(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func keyUse(ctx context.Context, q *queries.Queries, scope, key string) (use eventstore.KeyUse, found bool, err error) {
	row, err := q.KeyUse(ctx, queries.KeyUseParams{Scope: scope, Key: key})
	if found, err := rowFound(err); !found {
		return use, false, err
	}
	use = eventstore.KeyUse{First: domain.Position(row.FirstPosition), Last: domain.Position(row.LastPosition), Subject: domain.StreamID(row.Subject)}
	copy(use.Hash[:], row.Hash)
	return use, true, nil
}

func writePlan(ctx context.Context, q *queries.Queries, plan *eventstore.Plan, base domain.Position, micros int64) error {
	for _, st := range plan.Streams {
		var err error
		switch {
		case st.Before == st.After:
		case st.Before == 0:
			err = q.InsertStream(ctx, queries.InsertStreamParams{Stream: string(st.Stream), Version: int64(st.After), Closed: st.Close})
		default:
			err = q.UpdateStream(ctx, queries.UpdateStreamParams{Stream: string(st.Stream), Version: int64(st.After), Closed: st.Close})
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", st.Stream, err)
		}
	}
	for _, c := range plan.Claims {
		if c.Before == c.After {
			continue
		}
		if c.Before != "" {
			if err := q.DeleteClaim(ctx, queries.DeleteClaimParams{Scope: c.Scope, Value: c.Value}); err != nil {
				return fmt.Errorf("release %s: %w", c.Scope, err)
			}
		}
		if c.After != "" {
			if err := q.InsertClaim(ctx, queries.InsertClaimParams{Scope: c.Scope, Value: c.Value, Owner: string(c.After)}); err != nil {
				return fmt.Errorf("claim %s: %w", c.Scope, err)
			}
		}
	}
	for _, r := range plan.Rows {
		// This is the record as it is stored; its leaf covers the time of recording
		// too.
		hash := eventstore.HashLeaf(eventstore.LeafContent(r.Record, r.MetaJSON, micros))
		err := q.InsertRecord(ctx, queries.InsertRecordParams{
			Position: int64(base + r.Position), Stream: string(r.Stream), Version: int64(r.Version), Owner: r.Owner,
			Name: r.Name, Schema: int64(r.Schema), EventID: r.ID[:], Data: string(r.Data), Meta: string(r.MetaJSON),
			LeafHash: hash[:], RecordedAt: micros,
		})
		if err != nil {
			return fmt.Errorf("record %d: %w", base+r.Position, err)
		}
	}
	for _, k := range plan.Keys {
		if k.Use == nil {
			continue
		}
		err := q.InsertKey(ctx, queries.InsertKeyParams{Scope: k.Scope, Key: k.Key, Hash: k.Use.Hash[:],
			FirstPosition: int64(base + k.Use.First), LastPosition: int64(base + k.Use.Last), Subject: string(k.Use.Subject), CreatedAt: micros})
		if err != nil {
			return fmt.Errorf("idempotency key: %w", err)
		}
	}
	return q.SetPosition(ctx, int64(base)+int64(len(plan.Rows)))
}
