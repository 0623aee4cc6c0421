package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	brokerredis "github.com/tunnox-net/tunnox/broker/redis"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

// gate holds what passes it while it is shut, as a frozen process holds the write
// that it was about to make.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // guarded by mu; nil = open
	held chan struct{} // one for each that waits
}

func newGate() *gate { return &gate{held: make(chan struct{}, 100)} }

func (g *gate) close() { g.mu.Lock(); g.shut = make(chan struct{}); g.mu.Unlock() }

func (g *gate) open() { g.mu.Lock(); close(g.shut); g.shut = nil; g.mu.Unlock() }

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		g.held <- struct{}{}
		<-shut
	}
}

func (g *gate) holds(t *testing.T) {
	t.Helper()
	select {
	case <-g.held:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody comes to the gate")
	}
}

// working runs something until the end of the test.
func working(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// headed is a log as the relay reads it.
type headed struct{ *projectionstest.Log }

func (h headed) Head(context.Context) (eventstore.Checkpoint, error) {
	return eventstore.Checkpoint{Position: h.Position()}, nil
}

func redisClient(t *testing.T, url string) *goredis.Client {
	t.Helper()
	options, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := goredis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// frozenPublisher is the feed as a relay sees it that may be frozen.
type frozenPublisher struct {
	broker.Publisher
	gate *gate
}

func (f frozenPublisher) Publish(ctx context.Context, prev domain.Place, records []domain.Record) error {
	f.gate.pass()
	return f.Publisher.Publish(ctx, prev, records)
}

// A relay that was frozen in the middle of a write, lost its lease meanwhile and
// wakes up late, puts nothing on the feed a second time or out of order.
func TestAFrozenRelayWakesUpLate(t *testing.T) {
	url := services.Redis(t)
	client := redisClient(t, url)
	log := projectionstest.NewLog(0)
	history := projectionstest.NewHistory(log, projectionstest.Seeded(1))
	grow := func(to domain.Position) {
		for log.Position() < to {
			history.Step()
		}
	}
	grow(10)
	start := log.Position()
	options, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	feed := brokerredis.Options{Trust: testRecordKey(t).Trust()}
	follower, err := brokerredis.NewFollower(options, feed, nil).Follow(t.Context(), start)
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()

	frozen := newGate()
	working(t, eventstore.NewRelay(headed{log}, frozenPublisher{brokerredis.NewPublisher(client, feed), frozen}, eventstore.RelayOptions{
		Start: func(context.Context) (domain.Position, error) { return start, nil }}).Run)
	seen := start
	follow := func(to domain.Position) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for seen < to {
			e, err := follower.Next(ctx)
			if err != nil {
				t.Fatalf("behind %d: %v", seen, err)
			}
			if e.Record == nil {
				continue
			}
			if e.Position != seen+1 || e.Prev != seen {
				t.Fatalf("%d, which follows %d, came behind %d", e.Position, e.Prev, seen)
			}
			seen = e.Position
		}
	}
	grow(start + 5)
	follow(log.Position())

	frozen.close()
	grow(seen + 5)
	frozen.holds(t)
	working(t, eventstore.NewRelay(headed{log}, brokerredis.NewPublisher(client, feed), eventstore.RelayOptions{}).Run)
	follow(log.Position())
	grow(seen + 20)
	follow(log.Position())
	frozen.open() // and writes what it was about to, thirty records ago
	for range 20 {
		grow(log.Position() + 3)
		follow(log.Position())
	}
	records, err := client.XRange(t.Context(), "tunnox:feed", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, r := range records {
		count[r.ID]++
	}
	for p := start + 1; p <= log.Position(); p++ {
		if n := count[fmt.Sprintf("%d-0", p)]; n != 1 {
			t.Errorf("record %d is on the feed %d times", p, n)
		}
	}
}

// frozenStore is the read models as a projector sees them that may be frozen.
type frozenStore struct {
	projections.Store
	gate   *gate
	fenced chan struct{}
}

func (f frozenStore) Apply(ctx context.Context, b projections.Batch) error {
	f.gate.pass()
	err := f.Store.Apply(ctx, b)
	if errors.Is(err, projections.ErrFenced) {
		select {
		case f.fenced <- struct{}{}:
		default:
		}
	}
	return err
}

// A projector that was frozen in the middle of a write and wakes up late changes
// no row: the rows are at another position by then.
func TestAFrozenProjectorWakesUpLate(t *testing.T) {
	client := redisClient(t, services.Redis(t))
	rows := projectionsredis.New(client, testRecordKey(t).Trust(), nil)
	t.Cleanup(func() { _ = rows.Close() })
	reader := projections.NewReader(rows)
	log := projectionstest.NewLog(0)
	history := projectionstest.NewHistory(log, projectionstest.Seeded(2))
	grow := func(n int) {
		for range n {
			history.Step()
		}
	}
	shown := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := rows.Wait(ctx, log.Position()); err != nil {
			t.Fatalf("rows at %d: %v", log.Position(), err)
		}
		model, err := projectionstest.NewModel(log, log.Position())
		if err != nil {
			t.Fatal(err)
		}
		if err := model.Check(t.Context(), reader, log); err != nil {
			t.Fatalf("rows at %d are not the log: %v", log.Position(), err)
		}
	}
	grow(50)
	frozen := frozenStore{rows, newGate(), make(chan struct{}, 1)}
	working(t, projections.NewProjector(log, frozen, projections.Options{}).Run)
	shown()
	frozen.gate.close()
	grow(20)
	frozen.gate.holds(t)
	working(t, projections.NewProjector(log, rows, projections.Options{}).Run)
	shown()
	grow(20)
	shown()
	frozen.gate.open()
	select {
	case <-frozen.fenced:
	case <-time.After(20 * time.Second):
		t.Fatal("what came late was not refused")
	}
	shown()
	grow(50)
	shown()
}

// testRecordKey is a key that one test writes records with.
func testRecordKey(t *testing.T) *attest.Key {
	t.Helper()
	k, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return k
}
