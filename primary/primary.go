// Package primary gives connections to the Postgres server that takes writes,
// and lets go of those to one that did so yesterday.
//
// Its duty: every pool of the program is made here, so that all of them live
// through a failover alike. A server that was demoted goes on answering its old
// connections, with "read-only" to every write and with rows of the past to every
// read. So the first answer that tells of it ends all connections of the pool and
// not the one that heard it: those that only read would stay for as long as they
// are asked.
//
// Its limit: a demoted server that nobody writes to is found when somebody does,
// which the readiness of the log does too, or when the connection's life is over.
package primary

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// maxLife is how long a connection is used at most. A name that has come to
	// mean another server is looked up again within it.
	maxLife = 5 * time.Minute
	// lifeSpread keeps the connections of a pool from ending together.
	lifeSpread = time.Minute
	// connectTimeout bounds the try at one host: with several, one that is frozen
	// must not use up the time of a request before the next is asked.
	connectTimeout = 3 * time.Second
	// resetEvery bounds how often a pool is emptied: where every server is
	// read-only, each refused write ends its own connection and no others.
	resetEvery = time.Second
)

// Config reads a URL. Of several hosts it connects to one that takes writes,
// unless the URL says otherwise (target_session_attrs).
func Config(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	c := config.ConnConfig
	if c.ConnectTimeout <= 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	if c.ValidateConnect == nil && severalHosts(c) {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// A shorter life in the URL (pool_max_conn_lifetime) holds.
	config.MaxConnLifetime = min(config.MaxConnLifetime, maxLife)
	config.MaxConnLifetimeJitter = min(lifeSpread, config.MaxConnLifetime/5)
	return config, nil
}

// severalHosts tells hosts from the ways to one (with TLS, and without it).
func severalHosts(c *pgx.ConnConfig) bool {
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port {
			return true
		}
	}
	return false
}

// Open makes a pool. Like all pools it connects when it is asked for something.
func Open(ctx context.Context, config *pgxpool.Config) (*pgxpool.Pool, error) {
	var (
		made  atomic.Pointer[pgxpool.Pool]
		mu    sync.Mutex
		reset time.Time // guarded by mu
	)
	config.ConnConfig.OnPgError = func(_ *pgconn.PgConn, e *pgconn.PgError) bool {
		if !lost(e.Code) {
			return !strings.EqualFold(e.Severity, "FATAL")
		}
		mu.Lock()
		defer mu.Unlock()
		if pool := made.Load(); pool != nil && time.Since(reset) >= resetEvery {
			reset = time.Now()
			pool.Reset()
		}
		return false // ends this connection
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	made.Store(pool)
	return pool, nil
}

// lost reports an answer that a primary in order does not give.
func lost(code string) bool {
	switch code {
	case "25006", // read-only: it is a standby now
		"57P01", "57P02", "57P03", // it ends, has crashed, does not take connections yet
		"57P05": // idle for too long, in its opinion
		return true
	}
	return strings.HasPrefix(code, "08") // the connection to it is gone, in the opinion of what is between
}

// DB opens a database for what is done once, such as a look at the schema.
func DB(url string) (*sql.DB, error) {
	config, err := Config(url)
	if err != nil {
		return nil, fmt.Errorf("reach Postgres: %w", err)
	}
	return stdlib.OpenDB(*config.ConnConfig), nil
}
