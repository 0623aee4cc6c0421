package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/test/services"
)

func TestAManyTimesAskedCheckIsMadeOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var failing atomic.Bool
		c := newCheck(func(ctx context.Context) error {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			if failing.Load() {
				return errors.New("away")
			}
			return ctx.Err()
		})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := c.run(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("100 who ask at once make %d checks, want 1", n)
		}
		failing.Store(true)
		time.Sleep(checkedFor)
		if c.run(t.Context()) == nil || c.run(t.Context()) == nil {
			t.Error("what has failed is said to be well")
		}
		failing.Store(false)
		time.Sleep(checkedFor)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.run(gone)
		if err := c.run(t.Context()); err != nil {
			t.Errorf("the answer to somebody who left is given to others: %v", err)
		}
	})
}

// checks asks /ready until the named check says what is wanted.
func checks(t *testing.T, s *running, name, want string, status int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, body := get(t, "http://"+s.addresses["api"]+"/ready")
		var ready struct{ Checks map[string]string }
		if err := json.Unmarshal([]byte(body), &ready); err != nil {
			t.Fatal(err)
		}
		if ready.Checks[name] == want && got == status {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("/ready is %d %s, want %d with %s: %s", got, body, status, name, want)
		}
	}
}

func TestReadyTellsThatTheLogCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s, err := start(t, dir, serveArgs()...)
	if err != nil {
		t.Fatal(err)
	}
	checks(t, s, "store", "ok", 200)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	checks(t, s, "store", "failed", 503)
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	checks(t, s, "store", "ok", 200)
}

func TestReadyTellsThatWritesAreRefused(t *testing.T) {
	url, server := services.Postgres(t), services.StartRedis(t)
	s, err := start(t, t.TempDir(), serveArgs("--postgres", url, "--redis", server.URL())...)
	if err != nil {
		t.Fatal(err)
	}
	checks(t, s, "redis", "ok", 200)
	checks(t, s, "store", "ok", 200)
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	checks(t, s, "redis", "degraded", 200)
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	checks(t, s, "redis", "ok", 200)

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name := conn.Config().Database
	for _, statement := range []string{
		"ALTER DATABASE " + name + " SET default_transaction_read_only = on",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "' AND pid <> pg_backend_pid()",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	checks(t, s, "store", "failed", 503)
	if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+name+" RESET default_transaction_read_only"); err != nil {
		t.Fatal(err)
	}
	checks(t, s, "store", "ok", 200)
	if out := s.stderr.String(); !strings.Contains(out, "readiness check failed") {
		t.Errorf("the log does not say why: %s", out)
	}
}
