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
func (s *Store) write(ctx context.Context, what string, do func(transaction) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return do(transaction{s.q.WithTx(tx)}) })
	if err != nil && !errors.Is(err, webhook.ErrMoved) && !errors.Is(err, webhook.ErrNone) {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// Begin implements [webhook.Store].
func (s *Store) Begin(ctx context.Context, at domain.Position, endpoints []webhook.Endpoint) error {
	return s.write(ctx, "begin webhooks", func(t transaction) error { return webhook.Begin(ctx, t, at, endpoints) })
}

// Load implements [webhook.Store].
func (s *Store) Load(ctx context.Context) (at domain.Position, began bool, endpoints []webhook.Endpoint, err error) {
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.pool, moment, func(tx pgx.Tx) (err error) {
		at, began, endpoints, err = webhook.Load(ctx, transaction{s.q.WithTx(tx)})
		return err
	})
	if err != nil {
		err = fmt.Errorf("load webhooks: %w", err)
	}
	return at, began, endpoints, err
}

// Advance implements [webhook.Store].
func (s *Store) Advance(ctx context.Context, a webhook.Advance) error {
	return s.write(ctx, "advance webhooks", func(t transaction) error { return webhook.Apply(ctx, t, a) })
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
func (s *Store) Next(ctx context.Context, id int64, now time.Time) (webhook.Due, bool, error) {
	next, ok, err := webhook.Next(ctx, transaction{s.q}, func(do func(webhook.Transaction) error) error {
		return s.write(ctx, "set when it is due", func(t transaction) error { return do(t) })
	}, id, now)
	if err != nil {
		err = fmt.Errorf("read what is due of webhook %d: %w", id, err)
	}
	return next, ok, err
}

// Finish implements [webhook.Store].
func (s *Store) Finish(ctx context.Context, o webhook.Outcome) error {
	return s.write(ctx, "note a delivery", func(t transaction) error { return webhook.Note(ctx, t, o) })
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
	err := s.write(ctx, "add a delivery", func(t transaction) (err error) {
		d, err = webhook.Add(ctx, t, d)
		return err
	})
	return d, err
}

// Redeliver implements [webhook.Store].
func (s *Store) Redeliver(ctx context.Context, id, of int64, now time.Time) (d webhook.Delivery, err error) {
	err = s.write(ctx, "redeliver", func(t transaction) (err error) {
		d, err = webhook.Redeliver(ctx, t, id, of, now)
		return err
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
