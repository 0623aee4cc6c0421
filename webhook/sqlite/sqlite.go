// Package sqlite keeps deliveries in the file of the embedded log.
//
// Its duty is the contract of [webhook.Store]. How: a connection of its own beside
// the log's, and one transaction for what records come to with the checkpoint. A
// commit outlives the process; with the machine the last ones may be lost
// (synchronous NORMAL), checkpoint and deliveries together: then they are written
// and sent again.
//
// Its limits: one process, and the schema is there: who opens the log has seen to
// both. Close it before the log.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"time"

	_ "modernc.org/sqlite" // database/sql's "sqlite"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/sqlite/internal/queries"
)

// Store keeps deliveries in the file of the embedded log.
type Store struct {
	mu sync.Mutex // one writer at a time: the file has one anyway
	db *sql.DB
	q  *queries.Queries
}

var _ webhook.Store = (*Store)(nil)

var pragmas = []string{"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "cache_size(-4000)"}

// Open opens a file that has the schema.
func Open(ctx context.Context, path string) (*Store, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open webhooks: %w", err)
	}
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open webhooks: %w", err), db.Close())
	}
	return &Store{db: db, q: queries.New(db)}, nil
}

// Close implements [webhook.Store].
func (s *Store) Close() error { return s.db.Close() }

// write does something as one transaction.
func (s *Store) write(ctx context.Context, what string, do func(*queries.Queries) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := do(s.q.WithTx(tx)); err != nil {
		_ = tx.Rollback() // what went wrong is told, and a transaction that is not committed is none
		if errors.Is(err, webhook.ErrMoved) || errors.Is(err, webhook.ErrNone) {
			return err
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Begin implements [webhook.Store].
func (s *Store) Begin(ctx context.Context, at domain.Position, endpoints []webhook.Endpoint) error {
	return s.write(ctx, "begin webhooks", func(q *queries.Queries) error {
		if n, err := q.Begin(ctx, int64(at)); err != nil || n == 0 {
			return err // another was first
		}
		return putEndpoints(ctx, q, endpoints)
	})
}

// Load implements [webhook.Store].
func (s *Store) Load(ctx context.Context) (at domain.Position, began bool, endpoints []webhook.Endpoint, err error) {
	err = s.write(ctx, "load webhooks", func(q *queries.Queries) error { // a transaction, so that both are of one moment
		position, err := q.Checkpoint(ctx)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		at, began = domain.Position(position), true
		states, err := q.Endpoints(ctx)
		for _, state := range states {
			e, err := endpointOf(state)
			if err != nil {
				return err
			}
			endpoints = append(endpoints, e)
		}
		return err
	})
	return at, began, endpoints, err
}

func endpointOf(state string) (e webhook.Endpoint, err error) {
	err = json.Unmarshal([]byte(state), &e)
	return e, err
}

func putEndpoints(ctx context.Context, q *queries.Queries, endpoints []webhook.Endpoint) error {
	for _, e := range endpoints {
		active := int64(0)
		if e.Active() {
			active = 1
		}
		state, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := q.PutEndpoint(ctx, queries.PutEndpointParams{Webhook: e.ID, Owner: e.UserID, State: string(state), Active: active}); err != nil {
			return err
		}
	}
	return nil
}

// Advance implements [webhook.Store].
func (s *Store) Advance(ctx context.Context, a webhook.Advance) error {
	return s.write(ctx, "advance webhooks", func(q *queries.Queries) error {
		n, err := q.Move(ctx, queries.MoveParams{Until: int64(a.To), Since: int64(a.From)})
		if err != nil {
			return err
		}
		if n == 0 {
			return webhook.ErrMoved
		}
		if err := putEndpoints(ctx, q, a.Endpoints); err != nil {
			return err
		}
		for _, d := range a.Deliveries {
			if err := q.AddDelivery(ctx, queries.AddDeliveryParams{Webhook: d.Webhook, Message: d.Message, Position: int64(d.Position),
				Event: d.Event, Now: millis(a.Now)}); err != nil {
				return err
			}
			if err := q.Wake(ctx, queries.WakeParams{Now: millis(a.Now), Webhook: d.Webhook}); err != nil {
				return err
			}
		}
		for _, id := range a.Ended {
			if err := errors.Join(q.EndEndpoint(ctx, id), q.EndDeliveries(ctx, id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Ready implements [webhook.Store].
func (s *Store) Ready(ctx context.Context, now time.Time, limit int) ([]webhook.Ready, error) {
	rows, err := s.q.Ready(ctx, queries.ReadyParams{Now: due(now), Most: int64(limit)})
	if err != nil {
		return nil, fmt.Errorf("look for deliveries: %w", err)
	}
	ready := make([]webhook.Ready, len(rows))
	for i, r := range rows {
		ready[i] = webhook.Ready(r)
	}
	return ready, nil
}

// Next implements [webhook.Store].
func (s *Store) Next(ctx context.Context, id int64, now time.Time) (next webhook.Due, ok bool, err error) {
	e, err := s.q.Endpoint(ctx, queries.EndpointParams{Webhook: id, Now: due(now)})
	if errors.Is(err, sql.ErrNoRows) {
		return next, false, nil
	}
	if err == nil {
		next.Endpoint, err = endpointOf(e.State)
	}
	if err != nil {
		return next, false, fmt.Errorf("read webhook %d: %w", id, err)
	}
	d, err := s.q.Next(ctx, queries.NextParams{Webhook: id, Now: now.UnixMilli()})
	if errors.Is(err, sql.ErrNoRows) {
		// What it was woken for is no more, or was asked for by hand and comes later.
		return next, false, s.write(ctx, "read a delivery", func(q *queries.Queries) error {
			return setFailing(ctx, q, id, webhook.Failing{Times: int(e.FailingTimes), Since: moment(e.FailingSince)})
		})
	}
	if err != nil {
		return next, false, fmt.Errorf("read delivery of webhook %d: %w", id, err)
	}
	next.Delivery = delivery(d)
	next.Failing = webhook.Failing{Times: int(e.FailingTimes), Since: moment(e.FailingSince)}
	return next, true, nil
}

// setFailing notes how an endpoint does and when it is due next.
func setFailing(ctx context.Context, q *queries.Queries, id int64, f webhook.Failing) error {
	if err := q.SetFailing(ctx, queries.SetFailingParams{Webhook: id, Times: int64(f.Times), Since: millis(f.Since), Rest: millis(f.Rest)}); err != nil {
		return err
	}
	return q.NothingDue(ctx, id)
}

// Finish implements [webhook.Store].
func (s *Store) Finish(ctx context.Context, o webhook.Outcome) error {
	return s.write(ctx, "note a delivery", func(q *queries.Queries) error {
		n, err := q.Finish(ctx, queries.FinishParams{ID: o.ID, Before: int64(o.Attempts) - 1, Status: string(o.Status), Failures: int64(o.Failures),
			NextAt: millis(o.NextAt), AttemptedAt: millis(o.Attempted), Took: o.Took.Milliseconds(), Code: int64(o.Code), Error: o.Error})
		if err != nil {
			return err
		}
		if n == 0 {
			return webhook.ErrMoved
		}
		return setFailing(ctx, q, o.Webhook, o.Failing)
	})
}

// List implements [webhook.Store].
func (s *Store) List(ctx context.Context, id, before int64, limit int) ([]webhook.Delivery, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := s.q.List(ctx, queries.ListParams{Webhook: id, Before: before, Most: int64(limit)})
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	list := make([]webhook.Delivery, len(rows))
	for i, r := range rows {
		list[i] = delivery(r)
	}
	return list, nil
}

// Add implements [webhook.Store].
func (s *Store) Add(ctx context.Context, d webhook.Delivery) (webhook.Delivery, error) {
	err := s.write(ctx, "add a delivery", func(q *queries.Queries) error {
		row, err := q.Add(ctx, queries.AddParams{Webhook: d.Webhook, Message: d.Message, Position: int64(d.Position), Event: d.Event, Now: millis(d.Created)})
		if err != nil {
			return err
		}
		d = delivery(row)
		return q.WakeNow(ctx, queries.WakeNowParams{Now: sql.NullInt64{Int64: row.NextAt, Valid: true}, Webhook: row.Webhook})
	})
	return d, err
}

// Redeliver implements [webhook.Store].
func (s *Store) Redeliver(ctx context.Context, id, of int64, now time.Time) (d webhook.Delivery, err error) {
	err = s.write(ctx, "redeliver", func(q *queries.Queries) error {
		row, err := q.Redeliver(ctx, queries.RedeliverParams{Webhook: id, ID: of, Now: millis(now)})
		if errors.Is(err, sql.ErrNoRows) {
			return webhook.ErrNone
		}
		if err != nil {
			return err
		}
		d = delivery(row)
		return q.WakeNow(ctx, queries.WakeNowParams{Now: sql.NullInt64{Int64: row.NextAt, Valid: true}, Webhook: row.Webhook})
	})
	return d, err
}

// Waiting implements [webhook.Store].
func (s *Store) Waiting(ctx context.Context) (int64, error) { return s.q.Waiting(ctx) }

// Crowded implements [webhook.Store].
func (s *Store) Crowded(ctx context.Context, most int64) ([]int64, error) {
	return s.q.Crowded(ctx, most)
}

// Prune implements [webhook.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) error {
	since := now.Add(-webhook.KeptFor).UnixMilli()
	return s.write(ctx, "prune deliveries", func(q *queries.Queries) error {
		if err := errors.Join(q.PruneOld(ctx, since), q.PruneOrphans(ctx, now.Add(-time.Hour).UnixMilli())); err != nil {
			return err
		}
		webhooks, err := q.Webhooks(ctx)
		for _, id := range webhooks {
			err = errors.Join(err, q.PruneMany(ctx, queries.PruneManyParams{Webhook: id, Most: webhook.KeptMost}))
		}
		return err
	})
}

// due is a moment as a column is compared with it that may hold none.
func due(t time.Time) sql.NullInt64 { return sql.NullInt64{Int64: t.UnixMilli(), Valid: true} }

func delivery(r queries.WebhookDelivery) webhook.Delivery {
	return webhook.Delivery{ID: r.ID, Webhook: r.Webhook, Message: r.Message, Position: domain.Position(r.Position), Event: r.Event,
		Status: webhook.Status(r.Status), Created: moment(r.CreatedAt), Attempts: int(r.Attempts), Failures: int(r.Failures), NextAt: moment(r.NextAt),
		Attempted: moment(r.AttemptedAt), Took: time.Duration(r.Took) * time.Millisecond, Code: int(r.Code), Error: r.Error}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
