package primary_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/primary"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func open(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	config, err := primary.Config(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 4
	pool, err := primary.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// execute runs a statement over a connection of its own.
func execute(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func database(t *testing.T, at string) string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path[1:]
}

// readOnly counts the pool's sessions that refuse writes.
func readOnly(t *testing.T, pool *pgxpool.Pool, n int) (count int) {
	t.Helper()
	held := make([]*pgxpool.Conn, n)
	for i := range held {
		var err error
		if held[i], err = pool.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		var mode string
		if err := held[i].QueryRow(t.Context(), "SHOW transaction_read_only").Scan(&mode); err != nil {
			t.Fatal(err)
		}
		if mode == "on" {
			count++
		}
	}
	for _, c := range held {
		c.Release()
	}
	return count
}

// A session keeps the read-only default of the database that it began with. So sessions
// that began while the default was read-only behave like those of a demoted server: new
// sessions would accept writes, old ones never will.
func TestSessionsOfYesterdaysPrimaryEnd(t *testing.T) {
	at := services.Postgres(t)
	execute(t, at, "CREATE TABLE things (id int)")
	name := database(t, at)
	execute(t, at, "ALTER DATABASE "+name+" SET default_transaction_read_only = on")
	pool := open(t, at)
	if n := readOnly(t, pool, 4); n != 4 {
		t.Fatalf("%d of 4 sessions are read-only: the test tests nothing", n)
	}
	over := open(t, at) // this one will write over a connection that it has already
	if n := readOnly(t, over, 1); n != 1 {
		t.Fatal("the session is not read-only: the test tests nothing")
	}
	execute(t, at+"&default_transaction_read_only=off", "ALTER DATABASE "+name+" RESET default_transaction_read_only")

	if _, err := pool.Exec(t.Context(), "INSERT INTO things VALUES (1)"); err == nil {
		t.Fatal("a read-only session wrote: the test tests nothing")
	}
	if n := readOnly(t, pool, 4); n != 0 {
		t.Errorf("after a write was refused, %d of 4 sessions are still those of the old primary", n)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO things VALUES (1)"); err != nil {
		t.Errorf("the write after the one that was refused: %v", err)
	}
	if err := pgx.BeginFunc(t.Context(), over, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO things VALUES (1)")
		return err
	}); err == nil {
		t.Fatal("a read-only session wrote: the test tests nothing")
	}
	if n := readOnly(t, over, 1); n != 0 {
		t.Error("a session that refused a write within a transaction was kept")
	}
}

func TestOfSeveralHostsTheOneThatTakesWrites(t *testing.T) {
	a := services.StartPostgres(t, services.PostgresOptions{TCP: true})
	b := services.StartPostgres(t, services.PostgresOptions{TCP: true})
	mode := func(s *services.PostgresServer, readOnly string) {
		execute(t, s.URL(), "ALTER SYSTEM SET default_transaction_read_only = "+readOnly)
		execute(t, s.URL(), "SELECT pg_reload_conf()")
	}
	for _, s := range []*services.PostgresServer{a, b} {
		execute(t, s.URL(), "CREATE TABLE things (id int)")
	}
	u, err := url.Parse(a.URL())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Del("host")
	q.Del("port")
	both := "postgres://" + a.Addr() + "," + b.Addr() + "/postgres?" + q.Encode()
	write := func(pool *pgxpool.Pool) error {
		_, err := pool.Exec(t.Context(), "INSERT INTO things VALUES (1)")
		return err
	}

	mode(a, "on")
	pool := open(t, both)
	until(t, func() error { return write(pool) })
	port := func() (n int) {
		if err := pool.QueryRow(t.Context(), "SELECT setting::int FROM pg_settings WHERE name = 'port'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := port()

	mode(b, "on")
	mode(a, "off")
	until(t, func() error { return write(pool) })
	if after := port(); after == before {
		t.Errorf("after b was demoted the pool is still at port %d", after)
	}

	a.Kill(t) // b is the primary again
	mode(b, "off")
	until(t, func() error { return write(pool) })
	if after := port(); after != before {
		t.Errorf("after a was killed the pool is at port %d, want %d", after, before)
	}
}

// until tries do while servers read their settings again.
func until(t *testing.T, do func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestConnectionsHaveALife(t *testing.T) {
	for _, c := range []struct {
		url  string
		want time.Duration
	}{
		{"postgres://a/x", 5 * time.Minute},
		{"postgres://a/x?pool_max_conn_lifetime=3h", 5 * time.Minute},
		{"postgres://a/x?pool_max_conn_lifetime=30s", 30 * time.Second},
	} {
		config, err := primary.Config(c.url)
		if err != nil {
			t.Fatal(err)
		}
		if config.MaxConnLifetime != c.want || config.ConnConfig.ConnectTimeout > 3*time.Second {
			t.Errorf("%s: life %v, want %v; %v to connect", c.url, config.MaxConnLifetime, c.want, config.ConnConfig.ConnectTimeout)
		}
		if config.ConnConfig.ValidateConnect != nil {
			t.Errorf("%s: one host that is read-only for a while can be read from all the same", c.url)
		}
	}
}
