// Package postgres counts usage in a Postgres database that any number of control
// planes share.
//
// Its duty is the contract of [usage.Store]. Each report is one transaction. The
// transaction locks the row of the reporter, so that a report and its repetition are
// counted one after the other. Then it locks the rows of the accounts in rising order,
// so that one report at a time is given a fraction of an account's bandwidth.
//
// Its limit: it expects the schema to be there. The opener of the log has checked the
// schema.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/primary"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/postgres/internal/queries"
)

// Store counts in a Postgres database.
type Store struct {
	pool *pgxpool.Pool
	q    *queries.Queries
}

var _ usage.Store = (*Store)(nil)

// maxConns bounds the connections. A report takes little time, and each forwarder sends
// one a second.
const maxConns = 4

// sessionSettings bound how long one process can block the others.
var sessionSettings = map[string]string{
	"application_name":                    "tunnox usage",
	"lock_timeout":                        "2s",
	"statement_timeout":                   "5s",
	"idle_in_transaction_session_timeout": "5s",
	"default_transaction_isolation":       "read committed",
}

// Open connects to a database that has the schema.
func Open(ctx context.Context, url string) (*Store, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = maxConns
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	return &Store{pool: pool, q: queries.New(pool)}, nil
}

// Close implements [usage.Store].
func (s *Store) Close() error {
	s.pool.Close() // waits for connections in use
	return nil
}

// attempts is how often a report is tried when the database rolls the transaction back
// in favour of another one.
const attempts = 3

// Count implements [usage.Store].
func (s *Store) Count(ctx context.Context, now time.Time, r usage.Report) (answer usage.Answer, err error) {
	for range attempts {
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			answer, err = usage.Count(ctx, transaction{s.q.WithTx(tx)}, now, r)
			return err
		})
		if !yielded(err) {
			break
		}
	}
	if err != nil {
		return usage.Answer{}, fmt.Errorf("count usage: %w", err)
	}
	return answer, nil
}

// yielded reports a deadlock or a serialization failure. Both mean that nothing was
// written.
func yielded(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "40P01" || pgErr.Code == "40001")
}
