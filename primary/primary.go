// Package primary connects to the Postgres server that accepts writes, and closes
// connections to a server that no longer does.
//
// Its duty: every pool of the program is made here, so all of them handle a failover in
// the same way. A demoted server still answers its old connections, with "read-only" to
// every write and with old rows to every read. So the first answer that shows it ends
// all connections of the pool, not only the one that got the answer: otherwise
// connections that only read would stay for as long as they are used.
//
// Its limit: a demoted server to which nobody writes is noticed at the next write (the
// readiness check of the log writes too), or when the life of the connection ends.
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
	// maxLife is how long a connection is used at most. So a host name that points to
	// another server now is looked up again within this time.
	maxLife = 5 * time.Minute
	// lifeSpread spreads the ends of a pool's connections.
	lifeSpread = time.Minute
	// connectTimeout bounds the attempt at one host. With several hosts, a frozen one
	// must not use up the time of a request before the next one is tried.
	connectTimeout = 3 * time.Second
	// resetEvery bounds how often a pool is emptied. Where every server is read-only,
	// each refused write ends its own connection and no others.
	resetEvery = time.Second
)

// Config reads a URL. With several hosts it connects to one that accepts writes, unless
// the URL says otherwise (target_session_attrs).
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
	// A shorter life in the URL (pool_max_conn_lifetime) stays.
	config.MaxConnLifetime = min(config.MaxConnLifetime, maxLife)
	config.MaxConnLifetimeJitter = min(lifeSpread, config.MaxConnLifetime/5)
	return config, nil
}

// severalHosts tells several hosts from several ways to one host (with and without
// TLS).
func severalHosts(c *pgx.ConnConfig) bool {
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port {
			return true
		}
	}
	return false
}

// Open makes a pool. Like all pools it connects when it is first used.
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

// lost reports whether an error code is one that a working primary does not give.
func lost(code string) bool {
	switch code {
	case "25006", // read-only: the server is a standby now
		"57P01", "57P02", "57P03", // the server ends, has crashed, does not accept connections yet
		"57P05": // the server closed the connection because it was idle for too long
		return true
	}
	return strings.HasPrefix(code, "08") // the connection to the server is lost, as a proxy in between reports
}

// DB opens a database for a single task, such as a look at the schema.
func DB(url string) (*sql.DB, error) {
	config, err := Config(url)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return stdlib.OpenDB(*config.ConnConfig), nil
}
