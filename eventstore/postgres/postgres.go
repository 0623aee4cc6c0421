// Package postgres keeps the log in a Postgres database that any number of control
// planes share.
//
// Its duty is the contract of [eventstore.Store]. The lock on one row, es.head, orders
// the commits. A whole batch is one call of the function es.append in autocommit, so
// the lock is held for the time of a flush and never over a round trip. The rules of
// appends are not in SQL: [eventstore.NewPlan] decides on a state that the appends
// themselves name, and the function refuses the whole plan if the state was another.
//
// Its limit: the database provides the durability. Session settings make sure that a
// commit is flushed even where the server's default is different. But a standby that is
// promoted asynchronously may lack the end of the log; followers notice this with
// [eventstore.Store.Verify].
package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/primary"
)

// Options tune a store; the zero value has good defaults.
type Options struct {
	// MaxConns bounds the connections; 0 means 8. More do not make appends faster,
	// because appends wait for each other by design.
	MaxConns int
}

// Store is the log in a Postgres database.
type Store struct {
	pool   *pgxpool.Pool
	q      *queries.Queries
	signal eventstore.Signal
	recent eventstore.Recent
	done   chan struct{} // closed by Close
	draws  map[domain.Sequence]*draw
}

// sessionSettings bound how long one process can block the others: all of them need the
// lock on the head.
var sessionSettings = map[string]string{
	"application_name":                    "tunnox",
	"lock_timeout":                        "2s",
	"statement_timeout":                   "5s",
	"idle_in_transaction_session_timeout": "5s",
	"default_transaction_isolation":       "read committed",
	"plan_cache_mode":                     "force_generic_plan",
	"enable_seqscan":                      "off",
	"enable_hashjoin":                     "off",
	"enable_mergejoin":                    "off",
}

// Migrate brings the database to the schema that this program knows and gives the
// number of steps.
func Migrate(ctx context.Context, url string) (applied int, err error) {
	db, err := primary.DB(url)
	if err != nil {
		return 0, fmt.Errorf("migrate the log: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.PingContext(ctx); err != nil {
		return 0, failure(ctx, "migrate the log", err)
	}
	return migrations.Postgres(ctx, db)
}

// Open opens the log. It gives [eventstore.ErrSchema] if the database's schema is older
// or newer than this program's: then call [Migrate] first, or update the program.
func Open(ctx context.Context, url string, options Options) (*Store, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = 8
	if options.MaxConns > 0 {
		config.MaxConns = int32(options.MaxConns)
	}
	flushed, err := inspect(ctx, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	if !flushed {
		// A commit that was not flushed may be lost in a crash, and its positions given
		// to other records. Settings other than off stay as they are: they may promise
		// more than we need.
		config.ConnConfig.RuntimeParams["synchronous_commit"] = "on"
	}
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, failure(ctx, "open the log", err)
	}
	q := queries.New(pool)
	return &Store{pool: pool, q: q, done: make(chan struct{}), draws: newDraws(q)}, nil
}

// inspect checks the schema and reports whether commits are flushed by default.
func inspect(ctx context.Context, config *pgx.ConnConfig) (flushed bool, err error) {
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	have, err := migrations.PostgresVersion(ctx, db)
	if err != nil {
		return false, failure(ctx, "open the log", err)
	}
	want := migrations.Newest(migrations.DialectPostgres)
	switch {
	case have < want:
		return false, fmt.Errorf("%w: the database has version %d, older than %d: run the migration", eventstore.ErrSchema, have, want)
	case have > want:
		return false, fmt.Errorf("%w: the database has version %d, newer than %d: update this program", eventstore.ErrSchema, have, want)
	}
	var mode string
	if err := db.QueryRowContext(ctx, "SHOW synchronous_commit").Scan(&mode); err != nil {
		return false, failure(ctx, "open the log", err)
	}
	return mode != "off", nil
}

// Close implements [eventstore.Store].
func (s *Store) Close() error {
	close(s.done)
	s.pool.Close() // waits for connections in use
	return nil
}

// Newest gives the place of the newest record that this process has appended.
func (s *Store) Newest() domain.Place { return s.recent.Newest() }

// Forget drops all cached knowledge of the log: it was rolled back.
func (s *Store) Forget() {
	s.recent.Forget()
	s.signal.Forget()
}
