// Package sqlite counts usage in the file of the embedded log.
//
// Its duty is the contract of [usage.Store]. It has a connection of its own beside the
// log's connection, because a report is rare and short. Each report is one transaction.
// A commit survives the end of the process. When the machine fails, the last commits
// may be lost (synchronous NORMAL). That loses counts and never log records.
//
// Its limits: one process only, and the schema must be there. The opener of the log has
// made sure of both. Close this store before the log.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	_ "modernc.org/sqlite" // database/sql's "sqlite"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite/internal/queries"
)

// Store counts in the file of the embedded log.
type Store struct {
	mu sync.Mutex // held by each writer: the file has only one writer at a time
	db *sql.DB
	q  *queries.Queries
}

var _ usage.Store = (*Store)(nil)

var pragmas = []string{"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "cache_size(-4000)"}

// Open opens a file that has the schema.
func Open(ctx context.Context, path string) (*Store, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open usage: %w", err), db.Close())
	}
	return &Store{db: db, q: queries.New(db)}, nil
}

// Close implements [usage.Store].
func (s *Store) Close() error { return s.db.Close() }

// Count implements [usage.Store].
func (s *Store) Count(ctx context.Context, now time.Time, r usage.Report) (answer usage.Answer, err error) {
	err = s.write(ctx, func(q *queries.Queries) error {
		answer, err = usage.Count(ctx, transaction{q}, now, r)
		return err
	})
	if err != nil {
		return usage.Answer{}, fmt.Errorf("count usage: %w", err)
	}
	return answer, nil
}

// write runs do in one transaction.
func (s *Store) write(ctx context.Context, do func(*queries.Queries) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(s.q.WithTx(tx)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
