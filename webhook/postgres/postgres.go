// Package postgres keeps deliveries in the Postgres database of the log.
//
// Its duty is the contract of [webhook.Store]. How: one transaction for what
// records come to, which moves the checkpoint from where it was expected to be,
// so that of two processes one wins; and one for each attempt, which is noted
// under its number.
//
// Its limit: it expects the schema; who opens the log has checked it.
package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/primary"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/postgres/internal/queries"
)

// Store keeps deliveries in a Postgres database.
type Store struct {
	pool *pgxpool.Pool
	q    *queries.Queries
}

var _ webhook.Store = (*Store)(nil)

// maxConns bounds the connections: what they are used for is short.
const maxConns = 4

// sessionSettings bound how long one process can hold up the others.
var sessionSettings = map[string]string{
	"application_name":                    "tunnox webhooks",
	"lock_timeout":                        "2s",
	"statement_timeout":                   "10s",
	"idle_in_transaction_session_timeout": "5s",
	"default_transaction_isolation":       "read committed",
}

// Open connects to a database that has the schema.
func Open(ctx context.Context, url string) (*Store, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open webhooks: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = maxConns
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open webhooks: %w", err)
	}
	return &Store{pool: pool, q: queries.New(pool)}, nil
}

// Close implements [webhook.Store].
func (s *Store) Close() error {
	s.pool.Close() // waits for connections in use
	return nil
}

// write does something as one transaction.
func (s *Store) write(ctx context.Context, what string, do func(*queries.Queries) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return do(s.q.WithTx(tx)) })
	if err != nil && !errors.Is(err, webhook.ErrMoved) && !errors.Is(err, webhook.ErrNone) {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
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
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		position, err := q.Checkpoint(ctx)
		if errors.Is(err, pgx.ErrNoRows) {
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
	if err != nil {
		return 0, false, nil, fmt.Errorf("load webhooks: %w", err)
	}
	return at, began, endpoints, nil
}

func endpointOf(state string) (e webhook.Endpoint, err error) {
	err = json.Unmarshal([]byte(state), &e)
	return e, err
}

func putEndpoints(ctx context.Context, q *queries.Queries, endpoints []webhook.Endpoint) error {
	for _, e := range endpoints {
		state, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := q.Lock(ctx, e.ID); err != nil {
			return err
		}
		if err := q.PutEndpoint(ctx, queries.PutEndpointParams{Webhook: e.ID, Owner: e.UserID, State: string(state), Active: e.Active()}); err != nil {
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
		if len(a.Deliveries) > 0 {
			p := queries.AddDeliveriesParams{Now: a.Now.UnixMilli()}
			for _, d := range a.Deliveries {
				p.Webhooks, p.Messages = append(p.Webhooks, d.Webhook), append(p.Messages, d.Message)
				p.Positions, p.Events = append(p.Positions, int64(d.Position)), append(p.Events, d.Event)
			}
			if err := q.AddDeliveries(ctx, p); err != nil {
				return err
			}
			if err := q.Wake(ctx, queries.WakeParams{Now: p.Now, Webhooks: p.Webhooks}); err != nil {
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
	rows, err := s.q.Ready(ctx, queries.ReadyParams{Now: now.UnixMilli(), Most: int32(limit)})
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
func (s *Store) Next(ctx context.Context, id int64, now time.Time) (due webhook.Due, ok bool, err error) {
	e, err := s.q.Endpoint(ctx, queries.EndpointParams{Webhook: id, Now: now.UnixMilli()})
	if errors.Is(err, pgx.ErrNoRows) {
		return due, false, nil
	}
	if err == nil {
		due.Endpoint, err = endpointOf(e.State)
	}
	if err != nil {
		return due, false, fmt.Errorf("read webhook %d: %w", id, err)
	}
	d, err := s.q.Next(ctx, queries.NextParams{Webhook: id, Now: now.UnixMilli()})
	if errors.Is(err, pgx.ErrNoRows) {
		// What it was woken for is no more, or was asked for by hand and comes later.
		return due, false, s.write(ctx, "read a delivery", func(q *queries.Queries) error {
			if err := q.Lock(ctx, id); err != nil {
				return err
			}
			return setFailing(ctx, q, id, webhook.Failing{Times: int(e.FailingTimes), Since: moment(e.FailingSince)})
		})
	}
	if err != nil {
		return due, false, fmt.Errorf("read delivery of webhook %d: %w", id, err)
	}
	due.Delivery = delivery(d)
	due.Failing = webhook.Failing{Times: int(e.FailingTimes), Since: moment(e.FailingSince)}
	return due, true, nil
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
		if err := q.Lock(ctx, o.Webhook); err != nil {
			return err
		}
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
	rows, err := s.q.List(ctx, queries.ListParams{Webhook: id, ID: before, Limit: int32(limit)})
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
		if err := q.HoldCheckpoint(ctx); err != nil {
			return err
		}
		row, err := q.Add(ctx, queries.AddParams{Webhook: d.Webhook, Message: d.Message, Position: int64(d.Position), Event: d.Event, CreatedAt: millis(d.Created)})
		if err != nil {
			return err
		}
		d = delivery(row)
		return q.WakeNow(ctx, queries.WakeNowParams{Now: row.NextAt, Webhook: row.Webhook})
	})
	return d, err
}

// Redeliver implements [webhook.Store].
func (s *Store) Redeliver(ctx context.Context, id, of int64, now time.Time) (d webhook.Delivery, err error) {
	err = s.write(ctx, "redeliver", func(q *queries.Queries) error {
		if err := q.HoldCheckpoint(ctx); err != nil {
			return err
		}
		if err := q.Lock(ctx, id); err != nil {
			return err
		}
		row, err := q.Redeliver(ctx, queries.RedeliverParams{Webhook: id, ID: of, Now: millis(now)})
		if errors.Is(err, pgx.ErrNoRows) {
			return webhook.ErrNone
		}
		if err != nil {
			return err
		}
		d = delivery(row)
		return q.WakeNow(ctx, queries.WakeNowParams{Now: row.NextAt, Webhook: row.Webhook})
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
	if err := errors.Join(s.q.PruneOld(ctx, since), s.q.PruneMany(ctx, webhook.KeptMost), s.q.PruneOrphans(ctx, now.Add(-time.Hour).UnixMilli())); err != nil {
		return fmt.Errorf("prune deliveries: %w", err)
	}
	return nil
}

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
