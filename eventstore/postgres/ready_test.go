package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/test/services"
)

func can(t *testing.T, s *postgres.Store) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.CanAppend(ctx)
}

func scan(t *testing.T, db *sql.DB, statement string) (text string) {
	t.Helper()
	if err := db.QueryRow(statement).Scan(&text); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return text
}

// Reading still works in each of these cases, so reading does not show them.
func TestALogThatCannotBeWrittenIsNotReady(t *testing.T) {
	url := services.Postgres(t)
	s := openURL(t, url)
	db := rawDB(t, url)
	name := scan(t, db, "SELECT current_database()")
	try := func(what string, begin, end func()) {
		t.Helper()
		if err := can(t, s); err != nil {
			t.Fatalf("before %s: %v", what, err)
		}
		begin()
		if err := can(t, s); err == nil {
			t.Errorf("with %s the log is said to be ready for appends", what)
		}
		if _, err := s.Head(t.Context()); err != nil {
			t.Errorf("with %s the log cannot be read: %v", what, err)
		}
		end()
	}
	execute := func(statement string) {
		t.Helper()
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}

	var tx *sql.Tx
	try("a locked head", func() {
		var err error
		if tx, err = db.Begin(); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("SELECT FROM es.head FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
	}, func() { _ = tx.Rollback() })

	// Where no file of the database can be created there is no room for one either.
	dir := filepath.Join(scan(t, db, "SHOW data_directory"), "base", scan(t, db, "SELECT oid::text FROM pg_database WHERE datname = current_database()"))
	mode := func(m os.FileMode) {
		if err := os.Chmod(dir, m); err != nil {
			t.Fatal(err)
		}
	}
	try("files that cannot be made", func() { mode(0o500) }, func() { mode(0o700) })

	// Sessions keep the default with which they began. After the default has changed,
	// the sessions of the pool end with the first refusal.
	try("a server that is read-only", func() {
		execute(fmt.Sprintf("ALTER DATABASE %s SET default_transaction_read_only = on", name))
		execute(fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s' AND pid <> pg_backend_pid()", name))
	}, func() {
		execute(fmt.Sprintf("ALTER DATABASE %s RESET default_transaction_read_only", name))
		_ = can(t, s) // this one notices it
	})
	if err := can(t, s); err != nil {
		t.Errorf("after a failover: %v", err)
	}
}
