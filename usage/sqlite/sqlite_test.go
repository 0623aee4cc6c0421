package sqlite_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	log "github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite"
	"github.com/tunnox-net/tunnox/usage/usagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB) usage.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := log.Migrate(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close usage: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) { usagetest.Run(t, open) }

// The log has the same file and a writer of its own: both go on.
func TestBesideTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := log.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	store, err := log.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	counts, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := counts.Close(); err != nil {
			t.Error(err)
		}
	}()
	var running sync.WaitGroup
	running.Go(func() {
		for range 200 {
			if _, err := store.Head(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	at := time.Now()
	for n := range int64(100) {
		if _, err := counts.Count(t.Context(), at, usage.Report{Reporter: "a", Sequence: n + 1, Lines: []usage.Line{{Mapping: 1, Account: 2, Traffic: usage.Traffic{ToTarget: 3}}}}); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	if months, err := counts.Months(t.Context(), at, 2); err != nil || months[2].ToTarget != 300 {
		t.Errorf("counted %v, %v", months, err)
	}
}
