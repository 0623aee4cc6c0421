package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	server := services.StartPostgres(t, services.PostgresOptions{Durable: true})
	url := server.Database(t)
	s := openURL(t, url)
	var acknowledged []eventstoretest.Acknowledged
	enough := make(chan struct{})
	var once sync.Once
	ended := make(chan error)
	go func() {
		ended <- eventstoretest.Hammer(context.Background(), s, func(a eventstoretest.Acknowledged) {
			acknowledged = append(acknowledged, a)
			if len(acknowledged) == 100 {
				once.Do(func() { close(enough) })
			}
		})
	}()
	select {
	case <-enough:
	case err := <-ended:
		t.Fatalf("the writers ended by themselves: %v", err)
	}
	server.Kill(t)
	if err := <-ended; !errors.Is(err, eventstore.ErrUnavailable) {
		t.Fatalf("with the server killed: %v, want ErrUnavailable", err)
	}
	if _, err := s.Head(t.Context()); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Fatalf("with the server killed: %v, want ErrUnavailable", err)
	}
	server.Start(t)
	// The same store works again without help.
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := s.Head(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the store does not come back: %v", err)
		}
	}
	eventstoretest.CheckAfterCrash(t, s, acknowledged)
}

func rawDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestSchemaMustFit(t *testing.T) {
	url := services.Postgres(t)
	if _, err := postgres.Open(t.Context(), url, postgres.Options{}); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "older") {
		t.Errorf("open an empty database: %v", err)
	}
	// Several processes start at once; one of them migrates.
	steps := make([]int, 3)
	var wg sync.WaitGroup
	for i := range steps {
		wg.Go(func() {
			n, err := postgres.Migrate(t.Context(), url)
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			steps[i] = n
		})
	}
	wg.Wait()
	if steps[0]+steps[1]+steps[2] != int(migrations.Newest(migrations.DialectPostgres)) {
		t.Errorf("three migrations at once took %v steps", steps)
	}
	if _, err := rawDB(t, url).Exec("INSERT INTO tunnox_schema (version_id, is_applied) VALUES ($1, true)", migrations.Newest(migrations.DialectPostgres)+1); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(t.Context(), url, postgres.Options{}); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("open a newer schema: %v", err)
	}
	if _, err := postgres.Open(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1", postgres.Options{}); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("open where no server is: %v", err)
	}
}

func TestLogIsAppendOnly(t *testing.T) {
	url := services.Postgres(t)
	s := openURL(t, url)
	if _, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()}); err != nil {
		t.Fatal(err)
	}
	db := rawDB(t, url)
	for _, statement := range []string{"UPDATE es.records SET data = '{}'", "DELETE FROM es.records", "TRUNCATE es.records",
		"INSERT INTO es.records SELECT * FROM es.records ON CONFLICT (position) DO UPDATE SET name = 'forged'"} {
		if _, err := db.Exec(statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func eventA() eventstore.Append {
	return eventstore.Append{Streams: []eventstore.StreamAppend{{Stream: "user-1", Expected: eventstore.Any}},
		Events: []eventstore.NewEvent{{Name: "happened", Schema: 1, Data: []byte(`{}`)}}, Account: 1}
}

// A waiter notices another process's append by polling.
func TestWaitNoticesOtherProcesses(t *testing.T) {
	url := services.Postgres(t)
	a, b := openURL(t, url), openURL(t, url)
	woken := make(chan error, 1)
	go func() { woken <- a.Wait(t.Context(), 0) }()
	if _, err := b.AppendBatch(t.Context(), []eventstore.Append{eventA()}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-woken:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not noticed in 5 s")
	}
}

// If somebody keeps the lock of the head, an append gives up and says so.
func TestHeldLockIsUnavailable(t *testing.T) {
	url := services.Postgres(t)
	s := openURL(t, url)
	db := rawDB(t, url)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT position FROM es.head FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()}); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("with the head locked: %v, want ErrUnavailable", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendBatch(t.Context(), []eventstore.Append{eventA()}); err != nil {
		t.Errorf("with the head free again: %v", err)
	}
}

// Writers of several processes change the same event streams, so that plans fail until
// the head is locked first. Every batch still ends.
func TestBatchesOfSeveralProcessesEnd(t *testing.T) {
	url := services.Postgres(t)
	var wg sync.WaitGroup
	for p := range 4 {
		s := openURL(t, url)
		wg.Go(func() {
			for i := range 40 {
				var batch []eventstore.Append
				for n := range 5 {
					a := eventA()
					a.Streams[0].Stream = "user-1"
					a.Key, a.KeyScope, a.Subject = fmt.Sprint(i, n), "all", "user-1"
					batch = append(batch, a)
				}
				results, err := s.AppendBatch(t.Context(), batch)
				if err != nil {
					t.Errorf("process %d: %v", p, err)
					return
				}
				for _, r := range results {
					if r.Err != nil {
						t.Errorf("process %d: %v", p, r.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	s := openURL(t, url)
	head, err := s.Head(t.Context())
	if err != nil || head.Position != 200 {
		t.Fatalf("the log ends at %d, %v; want 200, each key once", head.Position, err)
	}
}
