package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// attempts is how often a batch is planned on a state that may change before the head
// is locked. Two are enough unless other processes write to the same event streams.
const attempts = 3

// AppendBatch implements [eventstore.Store]. When what the appends expect is
// what is, which is nearly always, it is one round trip.
func (s *Store) AppendBatch(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	results, err := s.appendBatch(ctx, batch)
	if badData(err) {
		return s.appendSingly(ctx, batch)
	}
	if err != nil {
		return nil, failure(ctx, "append", err)
	}
	s.appended(results)
	return results, nil
}

// appended tells the followers of the log in this process.
func (s *Store) appended(results []eventstore.Result) {
	var last domain.Position
	for _, r := range results {
		last = max(last, r.Last)
		s.recent.Add(r.Records)
	}
	s.signal.Raise(last)
}

func (s *Store) appendBatch(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	state, guessed := eventstore.GuessState(batch)
	for range attempts {
		if !guessed {
			var err error
			if state, err = readState(ctx, s.q, batch); err != nil {
				return nil, err
			}
		}
		plan := eventstore.NewPlan(state, batch)
		if len(plan.Rows) == 0 && guessed {
			// There is nothing to write, so the database would not check the guess.
			guessed = false
			continue
		}
		results, err := write(ctx, s.q, plan)
		if !otherState(err) {
			return results, err
		}
		guessed = false
	}
	return s.appendLocked(ctx, batch)
}

// appendLocked takes the lock first, so that the state cannot change. It holds the lock
// over three round trips, so it is the last resort. But it always ends, whatever other
// processes do.
func (s *Store) appendLocked(ctx context.Context, batch []eventstore.Append) (results []eventstore.Result, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if _, err := q.LockHead(ctx); err != nil {
			return err
		}
		state, err := readState(ctx, q, batch)
		if err != nil {
			return err
		}
		results, err = write(ctx, q, eventstore.NewPlan(state, batch))
		return err
	})
	return results, err
}

// appendSingly appends one by one, to find the append that the database cannot store.
func (s *Store) appendSingly(ctx context.Context, batch []eventstore.Append) ([]eventstore.Result, error) {
	all := make([]eventstore.Result, 0, len(batch))
	for i := range batch {
		results, err := s.appendBatch(ctx, batch[i:i+1])
		switch {
		case badData(err):
			all = append(all, eventstore.Result{Err: fmt.Errorf("%w: %w", eventstore.ErrMalformed, err)})
		case err != nil:
			return nil, failure(ctx, "append", err)
		default:
			all = append(all, results...)
			s.appended(results)
		}
	}
	return all, nil
}

func readState(ctx context.Context, q *queries.Queries, batch []eventstore.Append) (eventstore.State, error) {
	var p queries.StateParams
	for _, a := range batch {
		for _, stream := range a.Streams {
			p.Streams = append(p.Streams, string(stream.Stream))
		}
		for _, list := range [][]domain.Claim{a.Releases, a.Claims} {
			for _, c := range list {
				p.ClaimScopes, p.ClaimValues = append(p.ClaimScopes, c.Scope), append(p.ClaimValues, c.Value)
			}
		}
		if a.Key != "" {
			p.KeyScopes, p.Keys = append(p.KeyScopes, a.KeyScope), append(p.Keys, a.Key)
		}
	}
	rows, err := q.State(ctx, p)
	if err != nil {
		return eventstore.State{}, err
	}
	state := eventstore.State{
		Streams: map[domain.StreamID]eventstore.StreamState{},
		Claims:  map[eventstore.ClaimName]domain.StreamID{},
		Keys:    map[eventstore.KeyName]eventstore.KeyUse{},
	}
	for _, r := range rows {
		switch r.Kind {
		case "s":
			state.Streams[domain.StreamID(r.Name)] = eventstore.StreamState{Version: domain.Version(r.Version), Closed: r.Closed}
		case "c":
			state.Claims[eventstore.ClaimName{Scope: r.Name, Value: r.Value}] = domain.StreamID(r.Owner)
		case "k":
			use := eventstore.KeyUse{First: domain.Position(r.FirstPosition), Last: domain.Position(r.LastPosition), Subject: domain.StreamID(r.Owner)}
			copy(use.Hash[:], r.Hash)
			state.Keys[eventstore.KeyName{Scope: r.Name, Key: r.Value}] = use
		}
	}
	return state, nil
}

// write lets the database check the plan's state and write its rows. A plan without
// rows was made on a state that was read, so it needs no check.
func write(ctx context.Context, q *queries.Queries, plan *eventstore.Plan) ([]eventstore.Result, error) {
	if len(plan.Rows) == 0 {
		return plan.Results(0, eventstore.RecordedNow()), nil
	}
	row, err := q.AppendBatch(ctx, params(plan))
	if err != nil {
		return nil, err
	}
	return plan.Results(domain.Position(row.Base), row.Recorded.UTC()), nil
}

// params spreads the plan over arrays. Empty arrays must not be NULL: the function uses
// their cardinality.
func params(plan *eventstore.Plan) queries.AppendBatchParams {
	n, streams, keys := len(plan.Rows), len(plan.Streams), len(plan.Keys)
	p := queries.AppendBatchParams{
		Streams: make([]string, 0, streams), Before: make([]int64, 0, streams), After: make([]int64, 0, streams), Close: make([]bool, 0, streams),
		Guards: make([]string, 0, streams), GuardVersions: make([]int64, 0, streams),
		HeldScopes: []string{}, HeldValues: []string{}, HeldOwners: []string{},
		AbsentScopes: []string{}, AbsentKeys: []string{},
		DropScopes: []string{}, DropValues: []string{}, DropOwners: []string{},
		ClaimScopes: []string{}, ClaimValues: []string{}, ClaimOwners: []string{},
		KeyScopes: make([]string, 0, keys), Keys: make([]string, 0, keys), KeyHashes: make([][]byte, 0, keys),
		KeyFirsts: make([]int64, 0, keys), KeyLasts: make([]int64, 0, keys), KeySubjects: make([]string, 0, keys),
		RecordStreams: make([]string, 0, n), Versions: make([]int64, 0, n), Owners: make([]int64, 0, n), Names: make([]string, 0, n),
		Schemas: make([]int16, 0, n), Ids: make([][16]byte, 0, n), Data: make([]string, 0, n), Meta: make([]string, 0, n),
	}
	for _, s := range plan.Streams {
		if s.Before == s.After {
			p.Guards, p.GuardVersions = append(p.Guards, string(s.Stream)), append(p.GuardVersions, int64(s.Before))
			continue
		}
		p.Streams = append(p.Streams, string(s.Stream))
		p.Before, p.After = append(p.Before, int64(s.Before)), append(p.After, int64(s.After))
		p.Close = append(p.Close, s.Close)
	}
	for _, c := range plan.Claims {
		if c.Before == c.After {
			p.HeldScopes, p.HeldValues = append(p.HeldScopes, c.Scope), append(p.HeldValues, c.Value)
			p.HeldOwners = append(p.HeldOwners, string(c.Before))
			continue
		}
		if c.Before != "" {
			p.DropScopes, p.DropValues = append(p.DropScopes, c.Scope), append(p.DropValues, c.Value)
			p.DropOwners = append(p.DropOwners, string(c.Before))
		}
		if c.After != "" {
			p.ClaimScopes, p.ClaimValues = append(p.ClaimScopes, c.Scope), append(p.ClaimValues, c.Value)
			p.ClaimOwners = append(p.ClaimOwners, string(c.After))
		}
	}
	for _, k := range plan.Keys {
		if k.Use == nil {
			p.AbsentScopes, p.AbsentKeys = append(p.AbsentScopes, k.Scope), append(p.AbsentKeys, k.Key)
			continue
		}
		p.KeyScopes, p.Keys = append(p.KeyScopes, k.Scope), append(p.Keys, k.Key)
		p.KeyHashes = append(p.KeyHashes, k.Use.Hash[:])
		p.KeyFirsts, p.KeyLasts = append(p.KeyFirsts, int64(k.Use.First)), append(p.KeyLasts, int64(k.Use.Last))
		p.KeySubjects = append(p.KeySubjects, string(k.Use.Subject))
	}
	for _, r := range plan.Rows {
		p.RecordStreams, p.Versions = append(p.RecordStreams, string(r.Stream)), append(p.Versions, int64(r.Version))
		p.Owners, p.Names = append(p.Owners, r.Owner), append(p.Names, r.Name)
		p.Schemas, p.Ids = append(p.Schemas, int16(r.Schema)), append(p.Ids, r.ID)
		p.Data, p.Meta = append(p.Data, string(r.Data)), append(p.Meta, string(r.MetaJSON))
	}
	return p
}
