package projectionstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Backend is a store under test.
type Backend struct {
	Store projections.Store
	// Flush loses everything the store has, as its server does when flushed.
	Flush func()
}

// Run runs the suite; open gives an empty store for each test.
func Run(t *testing.T, open func(testing.TB) Backend) {
	tests := []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"nothing is read before the first build", testUnbuilt},
		{"an empty log is an empty read model", testEmptyLog},
		{"every read equals the fold of a random history", testFold},
		{"records given twice are folded once", testDuplicates},
		{"a batch is applied at its start only, whole", testFenced},
		{"two projectors share the work", testTwoProjectors},
		{"a flush in the middle is built anew", testFlush},
		{"another log is built anew", testForkedLog},
		{"a restored log that stays silent is noticed", testShorterLog},
		{"a build shows nothing until it is switched to", testBuildBeside},
		{"of two builds the first wins", testContestedBuild},
		{"a record of the future halts, and reads go on", testUnknownEvent},
		{"wait ends at the position or in time", testWait},
		{"a check finds what differs, and nothing while the log grows", testCheck},
		{"a client's view with the feed behind it is the present", testClientView},
		{"a reader that follows is as new as it was told", testFollowing},
		{"a reader that follows asks for what changed only", testRemembered},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// limit bounds every wait of the suite.
const limit = 20 * time.Second

// start runs a projector until the returned function or the test's end stops it.
func start(t testing.TB, log projections.Log, store projections.Store) (p *projections.Projector, stop func()) {
	t.Helper()
	p = projections.NewProjector(log, store, projections.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return p, stop
}

func await(t testing.TB, what string, cond func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = cond(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// equal waits until the store is at the end of the log and compares everything.
func equal(t testing.TB, log *Log, store projections.Store) {
	t.Helper()
	m, err := NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	await(t, "read models equal the fold", func() error {
		return m.Check(context.Background(), projections.NewReader(store), log)
	})
}

func grow(h *History, steps int) {
	for range steps {
		h.Step()
	}
}

func testUnbuilt(t *testing.T, b Backend) {
	ctx := context.Background()
	r := projections.NewReader(b.Store)
	if p, err := r.Position(ctx); p != 0 || err != nil {
		t.Errorf("position: %d, %v", p, err)
	}
	if _, _, err := r.User(ctx, domain.FirstUserID); !errors.Is(err, projections.ErrUnavailable) {
		t.Errorf("user: %v, want ErrUnavailable: that nothing is built does not mean that nobody exists", err)
	}
	if _, _, err := r.Users(ctx, 0, 10); !errors.Is(err, projections.ErrUnavailable) {
		t.Errorf("users: %v, want ErrUnavailable", err)
	}
	if err := b.Store.Apply(ctx, projections.Batch{To: projections.Checkpoint{Position: 1}}); !errors.Is(err, projections.ErrFenced) {
		t.Errorf("apply: %v, want ErrFenced", err)
	}
}

func testEmptyLog(t *testing.T, b Backend) {
	log := NewLog(0)
	p, _ := start(t, log, b.Store)
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	equal(t, log, b.Store)
	grow(NewHistory(log, Seeded(1)), 20)
	equal(t, log, b.Store)
}

func testFold(t *testing.T, b Backend) {
	rapid.Check(t, func(rt *rapid.T) {
		b.Flush()
		log := NewLog(0)
		h := NewHistory(log, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		p := projections.NewProjector(log, b.Store, projections.Options{})
		grow(h, rapid.IntRange(0, 40).Draw(rt, "before"))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		defer func() { cancel(); <-done }()
		if err := p.Ready(ctx); err != nil {
			rt.Fatal(err)
		}
		grow(h, rapid.IntRange(0, 30).Draw(rt, "after"))
		m, err := NewModel(log, log.Position())
		if err != nil {
			rt.Fatal(err)
		}
		r := projections.NewReader(b.Store)
		if err := r.Wait(ctx, log.Position()); err != nil {
			rt.Fatal(err)
		}
		if err := m.Check(ctx, r, log); err != nil {
			rt.Fatal(err)
		}
	})
}

// repeating is a log whose reads begin up to five records early.
type repeating struct{ *Log }

func (l repeating) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	records, err := l.Log.ReadAll(ctx, after, limit)
	if err == nil && len(records) > 3 {
		records = append(records[:3:3], records[1:]...)
	}
	return records, err
}

func testDuplicates(t *testing.T, b Backend) {
	log := NewLog(0)
	h := NewHistory(log, Seeded(2))
	grow(h, 150)
	start(t, repeating{log}, b.Store)
	for range 4 {
		equal(t, log, b.Store)
		grow(h, 20)
	}
	equal(t, log, b.Store)
}

func testFenced(t *testing.T, b Backend) {
	ctx := context.Background()
	build, err := b.Store.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := build.Switch(ctx, false); err != nil {
		t.Fatal(err)
	}
	at := func(n int64, id byte) projections.Checkpoint {
		return projections.Checkpoint{Position: domain.Position(n), EventID: domain.EventID{id}}
	}
	key := projections.Key{Kind: projections.Quotas, ID: 7}
	put := func(from, to projections.Checkpoint, value string) error {
		return b.Store.Apply(ctx, projections.Batch{From: from, To: to,
			Put: []projections.Row{{Key: key, Value: []byte(value)}}, Add: []projections.Member{{Index: "users", ID: 7}}})
	}
	if err := put(projections.Checkpoint{}, at(3, 1), "a"); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]projections.Checkpoint{
		"the start again": {}, "a position before": at(2, 1), "a position behind": at(4, 1), "another history": at(3, 2)} {
		if err := put(from, at(9, 9), "b"); !errors.Is(err, projections.ErrFenced) {
			t.Errorf("apply from %s: %v, want ErrFenced", name, err)
		}
	}
	values, err := b.Store.Get(ctx, key, projections.Key{Kind: projections.Users, ID: 8})
	if err != nil || string(values[0]) != "a" || values[1] != nil {
		t.Errorf("rows after refused batches: %q, %v", values, err)
	}
	if c, err := b.Store.Checkpoint(ctx); err != nil || c != at(3, 1) {
		t.Errorf("checkpoint after refused batches: %v, %v", c, err)
	}
}

func testTwoProjectors(t *testing.T, b Backend) {
	log := NewLog(0)
	h := NewHistory(log, Seeded(3))
	grow(h, 100)
	_, stopFirst := start(t, log, b.Store)
	start(t, log, b.Store)
	for range 100 {
		grow(h, 3)
		time.Sleep(time.Millisecond) // lets both get hold of small batches
	}
	equal(t, log, b.Store)
	stopFirst()
	grow(h, 50)
	equal(t, log, b.Store)
}

func testFlush(t *testing.T, b Backend) {
	log := NewLog(0)
	h := NewHistory(log, Seeded(4))
	grow(h, 700)
	start(t, log, b.Store)
	equal(t, log, b.Store)
	for range 3 {
		b.Flush() // while records arrive, and at the end in silence
		grow(h, 50)
	}
	equal(t, log, b.Store)
	b.Flush()
	equal(t, log, b.Store)
}

func testForkedLog(t *testing.T, b Backend) {
	first, second := NewLog(0), NewLog(1)
	grow(NewHistory(first, Seeded(5)), 100)
	grow(NewHistory(second, Seeded(6)), 2000)
	_, stop := start(t, first, b.Store)
	equal(t, first, b.Store)
	stop()
	whole := map[int]bool{}
	for _, log := range []*Log{first, second} {
		m, err := NewModel(log, log.Position())
		if err != nil {
			t.Fatal(err)
		}
		whole[len(m.Users)] = true
	}
	ended := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			ids, err := b.Store.List(context.Background(), string(projections.AllUsers), 0, 10_000)
			if err != nil || !whole[len(ids)] {
				t.Errorf("during a build a reader sees %d users, %v; want one of %v", len(ids), err, whole)
				return
			}
			select {
			case <-ended:
				return
			default:
			}
		}
	})
	start(t, second, b.Store)
	equal(t, second, b.Store)
	close(ended)
	reader.Wait()
}

// replaced is a log that turns into another one under its followers.
type replaced struct {
	mu  sync.Mutex
	log *Log // guarded by mu
}

func (l *replaced) now() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log
}

func (l *replaced) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	return l.now().ReadAll(ctx, after, limit)
}

func (l *replaced) Wait(ctx context.Context, after domain.Position) error {
	return l.now().Wait(ctx, after)
}

func testShorterLog(t *testing.T, b Backend) {
	first, second := NewLog(0), NewLog(0)
	grow(NewHistory(first, Seeded(7)), 60)
	grow(NewHistory(second, Seeded(7)), 30) // the same history, cut off
	log := &replaced{log: first}
	start(t, log, b.Store)
	equal(t, first, b.Store)
	log.mu.Lock()
	log.log = second
	log.mu.Unlock()
	equal(t, second, b.Store)
}

func testBuildBeside(t *testing.T, b Backend) {
	ctx := context.Background()
	log := NewLog(0)
	h := NewHistory(log, Seeded(8))
	grow(h, 300)
	start(t, log, b.Store)
	equal(t, log, b.Store)
	before, err := NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	build, err := b.Store.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := build.Apply(ctx, projections.Batch{To: projections.Checkpoint{Position: 1, EventID: domain.EventID{9}},
		Put: []projections.Row{{Key: projections.Key{Kind: projections.Users, ID: 1}, Value: []byte(`{}`)}},
		Add: []projections.Member{{Index: string(projections.AllUsers), ID: 1}}}); err != nil {
		t.Fatal(err)
	}
	if err := before.Check(ctx, projections.NewReader(b.Store), log); err != nil {
		t.Errorf("reads during a build: %v", err)
	}
	if err := build.Switch(ctx, false); !errors.Is(err, projections.ErrBehind) {
		t.Errorf("switch to a build that is behind: %v, want ErrBehind", err)
	}
	if err := build.Switch(ctx, true); err != nil { // a read model of another log: it must be noticed
		t.Fatal(err)
	}
	grow(h, 30)
	equal(t, log, b.Store)
	if err := build.Discard(ctx); err != nil {
		t.Error(err)
	}
	equal(t, log, b.Store)
}

func testContestedBuild(t *testing.T, b Backend) {
	ctx := context.Background()
	begin := func() projections.Build {
		build, err := b.Store.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return build
	}
	one, two := begin(), begin()
	if err := one.Switch(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := two.Switch(ctx, true); !errors.Is(err, projections.ErrFenced) {
		t.Errorf("second switch: %v, want ErrFenced", err)
	}
	if err := two.Discard(ctx); err != nil {
		t.Error(err)
	}
	if err := two.Apply(ctx, projections.Batch{To: projections.Checkpoint{Position: 1}}); !errors.Is(err, projections.ErrFenced) {
		t.Errorf("apply to a discarded build: %v, want ErrFenced", err)
	}
	flushed := begin()
	b.Flush()
	if err := flushed.Switch(ctx, true); !errors.Is(err, projections.ErrFenced) {
		t.Errorf("switch after a flush: %v, want ErrFenced", err)
	}
}

func testUnknownEvent(t *testing.T, b Backend) {
	for _, built := range []bool{true, false} {
		b.Flush()
		log := NewLog(0)
		grow(NewHistory(log, Seeded(9)), 50)
		known, err := NewModel(log, log.Position())
		if err != nil {
			t.Fatal(err)
		}
		var p *projections.Projector
		stop := func() {}
		if built {
			p, stop = start(t, log, b.Store)
			equal(t, log, b.Store)
		}
		log.Append(domain.Record{Stream: domain.UserStream(999), Name: "user_ascended", Schema: 1, Data: []byte(`{}`)})
		grow(NewHistory(log, Seeded(10)), 5)
		if !built {
			p, stop = start(t, log, b.Store)
		}
		await(t, "halt", func() error {
			if err := p.Status().Halted; domain.CodeOf(err) != domain.CodeUnknownEvent {
				return fmt.Errorf("halted: %v", err)
			}
			return nil
		})
		if err := known.Check(context.Background(), projections.NewReader(b.Store), log); err != nil {
			t.Errorf("built before %v: reads after the halt: %v", built, err)
		}
		if err := p.Ready(t.Context()); domain.CodeOf(err) != domain.CodeUnknownEvent && !built {
			t.Errorf("ready: %v", err)
		}
		stop()
	}
}

func testWait(t *testing.T, b Backend) {
	ctx := context.Background()
	log := NewLog(0)
	h := NewHistory(log, Seeded(11))
	grow(h, 10)
	start(t, log, b.Store)
	r := projections.NewReader(b.Store)
	equal(t, log, b.Store)
	target := log.Position() + 20
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if err := r.Wait(ctx, target); err != nil {
				t.Errorf("wait: %v", err)
			}
			if p, err := r.Position(ctx); err != nil || p < target {
				t.Errorf("position after wait: %d, %v; want %d", p, err, target)
			}
		})
	}
	for log.Position() < target {
		h.Step()
	}
	waiting.Wait()
	begin := time.Now()
	if err := r.Wait(ctx, target+1_000_000); !errors.Is(err, projections.ErrStale) {
		t.Errorf("wait for what does not come: %v, want ErrStale", err)
	}
	if d := time.Since(begin); d > 4*time.Second {
		t.Errorf("wait took %s", d)
	}
	cut, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := r.Wait(cut, target+1_000_000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait with a context that ends: %v", err)
	}
}

func testClientView(t *testing.T, b Backend) {
	ctx := context.Background()
	log := NewLog(0)
	h := NewHistory(log, Seeded(12))
	grow(h, 150)
	start(t, log, b.Store)
	equal(t, log, b.Store)
	r := projections.NewReader(b.Store)
	if _, err := r.ClientView(ctx, 12345, 0); domain.CodeOf(err) != domain.CodeClientNotFound {
		t.Errorf("view of nobody: %v", err)
	}
	// Views are taken while records arrive, and completed from the log.
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				h.Step()
			}
		}
	})
	ids := log.clientIDs()
	var views []domain.ClientView
	for i := range 300 {
		v, err := r.ClientView(ctx, ids[i%len(ids)], log.Position())
		if domain.CodeOf(err) == domain.CodeClientNotFound {
			continue
		}
		if err != nil {
			t.Errorf("view: %v", err)
			break
		}
		views = append(views, v)
	}
	close(stop)
	writer.Wait()
	end, err := NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if err := completes(v, log, end); err != nil {
			t.Errorf("client %d viewed at %d: %v", v.Client.State.ID, v.Position, err)
		}
	}
	if len(views) < 50 {
		t.Errorf("only %d views were taken", len(views))
	}
}
