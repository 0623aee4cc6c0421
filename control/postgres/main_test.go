package postgres

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // for the migration

	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

// limit bounds every wait.
const limit = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// database gives the URL of one with the schema.
func database(t testing.TB) string {
	t.Helper()
	url := services.Postgres(t)
	db, err := sql.Open("pgx", url)
	must(t, err)
	defer db.Close()
	_, err = migrations.Postgres(t.Context(), db)
	must(t, err)
	return url
}

func openAt(t testing.TB, url string) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), url)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// holder is a session that tries to hold a lease.
type holder struct {
	*Session
	began chan int // one for each time the work begins
	stop  func() error
}

// hold has a session of its own hold the lease until stop.
func hold(t testing.TB, c *Cluster, id string) *holder {
	t.Helper()
	h := &holder{Session: c.Begin(ControlPlane{ID: id}, nil, slog.New(slog.DiscardHandler)), began: make(chan int, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- h.Hold(ctx, "relay", func(ctx context.Context) error {
			h.began <- 1
			<-ctx.Done()
			return nil
		})
	}()
	stopped := false
	h.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = h.stop() })
	return h
}

// begins waits until the holder works, and gives how long that took.
func (h *holder) begins(t testing.TB) time.Duration {
	t.Helper()
	at := time.Now()
	select {
	case <-h.began:
		return time.Since(at)
	case <-time.After(limit):
		t.Fatal("it does not get the lease")
		return 0
	}
}

func (h *holder) waits(t testing.TB) {
	t.Helper()
	select {
	case <-h.began:
		t.Error("two have the lease")
	default:
	}
}
