package projectionstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// counting counts the reads that reach a store.
type counting struct {
	projections.Store
	reads atomic.Int64
}

func (c *counting) Read(ctx context.Context, keys ...projections.Key) ([][]byte, domain.Position, error) {
	c.reads.Add(1)
	return c.Store.Read(ctx, keys...)
}

// following starts a reader that caches rows; it ends with the test.
func following(t testing.TB, store projections.Store, log *Log) *projections.Reader {
	t.Helper()
	r := projections.NewFollowingReader(store, log, log.Head)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return r
}

// testFollowing lets readers read rows while the log grows: each row must be as new as
// the position for which they waited, also after a deletion.
func testFollowing(t *testing.T, b Backend) {
	log := NewLog(0)
	h := NewHistory(log, Seeded(11))
	grow(h, 300)
	p, _ := start(t, log, b.Store)
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := following(t, b.Store, log)
	var grown atomic.Bool
	var working sync.WaitGroup
	working.Go(func() {
		defer grown.Store(true)
		grow(h, 500)
	})
	for reader := range uint64(4) {
		draw := Seeded(reader)
		working.Go(func() {
			for !grown.Load() {
				if err := newEnough(t.Context(), r, log, draw); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
	m, err := NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	await(t, "what is remembered equals the fold", func() error { return m.Check(t.Context(), r, log) })
}

// newEnough reads some rows after a wait for the end of the log.
func newEnough(ctx context.Context, r *projections.Reader, log *Log, draw func(int) int) error {
	at := log.Position()
	if err := r.WaitRow(ctx, at); err != nil {
		return fmt.Errorf("wait for %d: %w", at, err)
	}
	records := log.Records(at)
	for range 20 {
		stream, last := records[draw(len(records))].Stream, domain.Position(0)
		for _, r := range slices.Backward(records) {
			if r.Stream == stream {
				last = r.Position
				break
			}
		}
		var shown projections.Versions
		var found bool
		var err error
		switch id := stream.Number(); stream.Category() {
		case domain.CategoryUser:
			row, ok, rerr := r.User(ctx, id)
			shown, found, err = row.Versions, ok, rerr
		case domain.CategoryClient:
			row, ok, rerr := r.Client(ctx, id)
			shown, found, err = row.Versions, ok, rerr
		case domain.CategoryMapping:
			row, ok, rerr := r.Mapping(ctx, id)
			shown, found, err = row.Versions, ok, rerr
		case domain.CategoryKey:
			row, ok, rerr := r.Key(ctx, id)
			shown, found, err = row.Versions, ok, rerr
		case domain.CategoryQuota:
			row, ok, rerr := r.Quota(ctx, id)
			shown, found, err = row.Versions, ok, rerr
		default:
			continue
		}
		if err != nil || found && shown.Position < last {
			return fmt.Errorf("%s at %d, which has a record at %d: shown as of %d, %w", stream, at, last, shown.Position, err)
		}
	}
	return nil
}

// testRemembered counts how often a reader asks the store.
func testRemembered(t *testing.T, b Backend) {
	ctx := t.Context()
	log := NewLog(0)
	create(t, log, domain.FirstUserID)
	create(t, log, domain.FirstUserID+1)
	p, _ := start(t, log, b.Store)
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	store := &counting{Store: b.Store}
	r := following(t, store, log)
	read := func(id int64) projections.UserRow {
		t.Helper()
		row, ok, err := r.User(ctx, id)
		if err != nil || !ok {
			t.Fatalf("user %d: %v, %v", id, ok, err)
		}
		return row
	}
	await(t, "rows are remembered", func() error {
		read(domain.FirstUserID)
		read(domain.FirstUserID + 1)
		before := store.reads.Load()
		for range 50 {
			read(domain.FirstUserID)
			read(domain.FirstUserID + 1)
		}
		if n := store.reads.Load() - before; n > 0 {
			return fmt.Errorf("100 reads of two rows asked the store %d times", n)
		}
		return nil
	})

	name := "another"
	if err := log.Submit(domain.ChangeUser{ID: domain.FirstUserID, Username: &name}); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitRow(ctx, log.Position()); err != nil {
		t.Fatal(err)
	}
	before := store.reads.Load()
	if row := read(domain.FirstUserID); row.Username != name {
		t.Errorf("after the wait it is called %q", row.Username)
	}
	if store.reads.Load() == before {
		t.Error("what changed was not asked for again")
	}

	// A quota ends with its user, without a record of its own.
	gone := domain.FirstUserID + 1
	if _, ok, err := r.Quota(ctx, gone); !ok || err != nil {
		t.Errorf("quota: %v, %v", ok, err)
	}
	if err := log.Submit(domain.DeleteUser{ID: gone}); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitRow(ctx, log.Position()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := r.Quota(ctx, gone); ok || err != nil {
		t.Errorf("quota of a deleted user: %v, %v", ok, err)
	}

	// Nothing is built any more; the cached rows are still those of the log.
	b.Flush()
	if row, ok, err := r.User(ctx, domain.FirstUserID); err == nil && (!ok || row.Username != name) || err != nil && !errors.Is(err, projections.ErrUnavailable) {
		t.Errorf("after a flush: %+v, %v, %v", row, ok, err)
	}
}

func create(t testing.TB, log *Log, id int64) {
	t.Helper()
	name := fmt.Sprintf("user-%d", id)
	if err := log.Submit(domain.CreateUser{ID: id, Username: name, Email: name + "@example.org"}); err != nil {
		t.Fatal(err)
	}
}
