package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// backups copies a database while its users are shut out for a moment, and replaces the
// database by the copy, as a restore under running servers does.
type backups struct {
	t     *testing.T
	admin *pgx.Conn
	name  string
}

func newBackups(t *testing.T, server *services.PostgresServer, database string) *backups {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	return &backups{t: t, admin: admin, name: strings.TrimPrefix(u.Path, "/")}
}

func (b *backups) do(format string, args ...any) {
	b.t.Helper()
	if _, err := b.admin.Exec(b.t.Context(), fmt.Sprintf(format, args...)); err != nil {
		b.t.Fatal(err)
	}
}

// shut ends all connections to the database and accepts no others.
func (b *backups) shut() {
	b.t.Helper()
	b.do(`ALTER DATABASE %q ALLOW_CONNECTIONS false`, b.name)
	b.do(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '%s'`, b.name)
}

func (b *backups) open() { b.t.Helper(); b.do(`ALTER DATABASE %q ALLOW_CONNECTIONS true`, b.name) }

// take makes a copy.
func (b *backups) take() {
	b.t.Helper()
	b.shut()
	b.do(`CREATE DATABASE %q TEMPLATE %q`, b.name+"_copy", b.name)
	b.open()
}

// restore replaces the present database by the copy.
func (b *backups) restore() {
	b.t.Helper()
	b.shut()
	b.do(`DROP DATABASE %q`, b.name)
	b.do(`ALTER DATABASE %q RENAME TO %q`, b.name+"_copy", b.name)
	b.open()
}

// TestPostgresGoesBackInTime: the log is restored to an earlier state, under a running
// control plane and running forwarders. They show and carry what the restored log says,
// without a restart. A mapping that is disabled afterwards carries nothing. Commands of
// the accounts that have lost records are accepted.
func TestPostgresGoesBackInTime(t *testing.T) {
	t.Parallel()
	postgres := services.StartPostgres(t, services.PostgresOptions{})
	database := postgres.Database(t)
	w := newWorld(t, database, services.Redis(t))
	backup := newBackups(t, postgres, database)
	patiently := func(method, path string, body any) {
		t.Helper()
		var answer programs.Answer
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if answer, err = w.api.Call(method, path, body); err == nil && answer.Status < 300 {
				return
			}
		}
		t.Fatalf("%s %s: %v, %v", method, path, answer, err)
	}
	mapping := func() (port int, path string) {
		t.Helper()
		m := w.api.CreateMapping(t, w.far.wanted(t, w.service))
		works(t, m.LocalPort)
		return m.LocalPort, fmt.Sprintf("/api/v1/mappings/%d", m.ID)
	}
	deleted, deletedPath := mapping() // after the backup, so that the restore brings it back
	victim, victimPath := mapping()
	held, err := opened(victim)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	w.settled(t)
	backup.take()
	patiently(http.MethodGet, "/ready", nil)

	patiently(http.MethodDelete, deletedPath, nil)
	lost, _ := mapping()
	// Records after the restore must get the positions and versions of the lost ones.
	for range 5 {
		other, path := mapping()
		patiently(http.MethodPost, path+"/disable", nil)
		defer func() {
			if conn, err := opened(other); err == nil {
				_ = conn.Close()
				t.Error("a mapping that the restored log does not have carries bytes")
			}
		}()
	}
	w.settled(t)
	backup.restore()
	// All have noticed the rollback, and report it.
	programs.Eventually(t, settleLimit, func() error {
		for server, metric := range map[*programs.Server]string{w.Control: "tunnox_log_taken_back_total",
			w.Forwarders[0]: "tunnox_forwarder_forks_total", w.Forwarders[1]: "tunnox_forwarder_forks_total"} {
			if n, err := server.Sum(metric); err != nil || n != 1 {
				return fmt.Errorf("%s is %v, %w", metric, n, err)
			}
		}
		return nil
	})
	patiently(http.MethodGet, "/ready", nil)
	w.settled(t)
	if conn, err := opened(lost); err == nil {
		_ = conn.Close()
		t.Error("a mapping that the restored log does not have carries bytes")
	}
	works(t, deleted) // the restored log has it
	w.lives(t)

	patiently(http.MethodPost, victimPath+"/disable", nil)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := opened(victim)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(end) {
			t.Fatal("a mapping that was disabled after the restore carries bytes")
		}
	}
	_ = held.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, held); n != 0 {
		t.Errorf("a connection of a mapping that was disabled after the restore brought %d bytes, %v", n, err)
	}
	w.settled(t)
	answer, err := w.api.Call(http.MethodGet, "/ready", nil)
	var ready struct{ Checks map[string]string }
	if err == nil {
		err = json.Unmarshal(answer.Body, &ready)
	}
	if err != nil || ready.Checks["history"] != "ok" {
		t.Errorf("ready is %s, %v", answer.Body, err)
	}
}
