// Package sqlite counts usage in the file of the embedded log.
//
// Its duty is the contract of [usage.Store]. How: a connection of its own beside
// the log's, since a report is rare and short, and one transaction a report. A
// commit outlives the process; with the machine the last ones may be lost
// (synchronous NORMAL), which costs counts and never the log.
//
// Its limits: one process, and the schema is there: who opens the log has seen to
// both. Close it before the log.
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
	mu sync.Mutex // one at a time: the file has one writer anyway
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

// write does something as one transaction.
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
