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

var pragmas = []string{"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "cache_size(-4000)", "secure_delete(ON)"}

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
func (s *Store) write(ctx context.Context, what string, do func(transaction) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ended := false
	if err := do(transaction{s.q.WithTx(tx), &ended}); err != nil {
		_ = tx.Rollback() // what went wrong is told, and a transaction that is not committed is none
		if errors.Is(err, webhook.ErrMoved) || errors.Is(err, webhook.ErrNone) {
			return err
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if ended {
		// What is about an endpoint is overwritten in the file too, and not only in the
		// write-ahead log. Its user may have been erased.
		if _, err := s.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// Begin implements [webhook.Store].
func (s *Store) Begin(ctx context.Context, at domain.Position, endpoints []webhook.Endpoint) error {
	return s.write(ctx, "begin webhooks", func(t transaction) error { return webhook.Begin(ctx, t, at, endpoints) })
}

// Load implements [webhook.Store].
func (s *Store) Load(ctx context.Context) (at domain.Position, began bool, endpoints []webhook.Endpoint, err error) {
	err = s.write(ctx, "load webhooks", func(t transaction) (err error) { // a transaction, so that both are of one moment
		at, began, endpoints, err = webhook.Load(ctx, t)
		return err
	})
	return at, began, endpoints, err
}

// Advance implements [webhook.Store].
func (s *Store) Advance(ctx context.Context, a webhook.Advance) error {
	return s.write(ctx, "advance webhooks", func(t transaction) error { return webhook.Apply(ctx, t, a) })
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
func (s *Store) Next(ctx context.Context, id int64, now time.Time) (webhook.Due, bool, error) {
	next, ok, err := webhook.Next(ctx, transaction{s.q, new(bool)}, func(do func(webhook.Transaction) error) error {
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
	return s.write(ctx, "prune deliveries", func(t transaction) error {
		q := t.q
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
