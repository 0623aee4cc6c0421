package sqlite_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func open(t testing.TB) eventstore.Store {
	t.Helper()
	return openPath(t, filepath.Join(t.TempDir(), "log.db"))
}

func openPath(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	if _, err := sqlite.Migrate(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the log: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) { eventstoretest.Run(t, open) }

// rawDB opens the file without the store, as somebody with a shell would.
func rawDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
