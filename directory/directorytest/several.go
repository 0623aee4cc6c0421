package directorytest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

func testSeveral(t *testing.T, b Backend) {
	one := register(t, b.A, of("x", 7, "node-001"))
	two := register(t, b.B, of("x", 7, "node-002"))
	three := register(t, b.B, of("x", 7, "node-003"))
	online(t, b.A, three, two, one)
	for range 4 { // each node keeps its session
		b.Clock.Advance(directory.TTL / 3)
		beat(t, b.A, "node-001", true)
		beat(t, b.B, "node-002", true)
	}
	online(t, b.B, two, one) // the third node was silent

	// At the same node a new session replaces the one before, and the old session can
	// change nothing.
	again := register(t, b.A, of("x", 7, "node-001"))
	online(t, b.B, again, two)
	if err := b.A.Remove(context.Background(), one); err != nil {
		t.Fatal(err)
	}
	online(t, b.B, again, two)
	if fenced := renew(t, b.A, one); !slices.Equal(fenced, []directory.Session{one}) {
		t.Errorf("the replaced one was renewed: %+v", fenced)
	}
	if b.Flush != nil {
		b.Flush()
		alive(t, b.A, "node-001", "node-002")
		renew(t, b.B, two)
		online(t, b.A, two)
		renew(t, b.A, again)
		online(t, b.A, again, two)
	}
	if err := b.B.Remove(context.Background(), two); err != nil {
		t.Fatal(err)
	}
	online(t, b.A, again)
	if err := b.A.Remove(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	if p := lookup(t, b.B, 7); p.Online {
		t.Errorf("after the last has left: %+v", p)
	}
}

func testFenceAll(t *testing.T, b Backend) {
	first, second := watch(t, b.A, "node-001"), watch(t, b.A, "node-002")
	id := int64(0)
	fence := func() (one, two directory.Notice) {
		id++
		x := register(t, b.A, of("x", id, "node-001"))
		y := register(t, b.B, of("x", id, "node-002"))
		newer := register(t, b.B, of("newer", id, "node-003"))
		online(t, b.A, newer)
		if fenced := renew(t, b.A, x, y); !slices.Equal(fenced, []directory.Session{x, y}) {
			t.Fatalf("fenced %+v", fenced)
		}
		return directory.Notice{Kind: directory.Fenced, Session: x}, directory.Notice{Kind: directory.Fenced, Session: y}
	}
	var twos []directory.Notice
	told(t, first, func() directory.Notice {
		one, two := fence()
		twos = append(twos, two)
		return one
	})
	told(t, second, func() directory.Notice {
		_, two := fence()
		return two
	}, twos...)
}

// testSuperseded: a fenced agent fences nobody, whatever it does.
func testSuperseded(t *testing.T, b Backend) {
	ctx := context.Background()
	older := register(t, b.A, of("older", 7, "node-001"))
	newer := register(t, b.B, of("newer", 7, "node-002"))
	for _, node := range []string{"node-001", "node-002", "node-003"} {
		if _, err := b.A.Register(ctx, of("older", 7, node)); !errors.Is(err, directory.ErrSuperseded) {
			t.Fatalf("the older registers at %s: %v", node, err)
		}
	}
	if fenced := renew(t, b.A, older); len(fenced) != 1 {
		t.Errorf("the older was renewed")
	}
	online(t, b.A, newer)
	b.Clock.Advance(directory.TTL) // also when the newer one has left
	if _, err := b.A.Register(ctx, of("older", 7, "node-001")); !errors.Is(err, directory.ErrSuperseded) {
		t.Errorf("the older registers later: %v", err)
	}
	for range directory.MaxPast + 3 { // memory of instances is bounded
		newer = register(t, b.B, session(7, "node-002"))
		if _, err := b.A.Register(ctx, of("older", 8, "node-001")); err != nil {
			t.Fatalf("the same instance as another client: %v", err)
		}
	}
	alive(t, b.B, "node-002")
	online(t, b.A, newer)
	if _, err := b.A.Register(ctx, of("older", 7, "node-001")); err != nil {
		t.Errorf("an instance that was forgotten: %v", err)
	}
}

// testMove: the same agent goes to another node and back while its old node cleans up,
// before, during or after the move.
func testMove(t *testing.T, b Backend) {
	ctx := context.Background()
	var last directory.Session
	for round := range int64(1000) {
		id := round + 1
		from, to := "node-001", "node-002"
		if round%3 == 0 {
			to = from // its link broke, and it connects again
		}
		a := register(t, b.A, of("x", id, from))
		done := make(chan error, 1)
		go func() { done <- b.A.Remove(ctx, a) }()
		last = register(t, b.B, of("x", id, to))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := b.A.Remove(ctx, a); err != nil {
			t.Fatal(err)
		}
		online(t, b.A, last)
		if round%2 == 0 {
			if err := b.B.Remove(ctx, last); err != nil {
				t.Fatal(err)
			}
			if p := lookup(t, b.A, id); p.Online {
				t.Fatalf("round %d: after it has left: %+v", round, p)
			}
		}
	}
}

func testDisconnect(t *testing.T, b Backend) {
	ctx := context.Background()
	if nodes, err := b.A.Disconnect(ctx, 7); err != nil || len(nodes) != 0 {
		t.Errorf("nobody: %v, %v", nodes, err)
	}
	notices := watch(t, b.B, "node-002")
	id := int64(0)
	told(t, notices, func() directory.Notice {
		id++
		one := register(t, b.A, of("x", id, "node-001"))
		two := register(t, b.B, of("x", id, "node-002"))
		if nodes, err := b.A.Disconnect(ctx, id); err != nil || !slices.Equal(nodes, []string{"node-001", "node-002"}) {
			t.Fatalf("disconnect: %v, %v", nodes, err)
		}
		if p := lookup(t, b.B, id); p.Online || !p.LastSeen.Equal(b.Clock.Now()) {
			t.Fatalf("after that: %+v", p)
		}
		if nodes, err := b.A.Disconnect(ctx, id); err != nil || len(nodes) != 0 {
			t.Fatalf("again: %v, %v", nodes, err)
		}
		back := register(t, b.A, of("x", id, "node-001")) // the agent may connect again
		online(t, b.B, back)
		if fenced := renew(t, b.A, one); !slices.Equal(fenced, []directory.Session{one}) {
			t.Fatalf("the replaced one was renewed: %+v", fenced)
		}
		return directory.Notice{Kind: directory.Disconnected, Session: two}
	})
}

func testDisconnectUnheard(t *testing.T, b Backend) {
	ctx := context.Background()
	s := register(t, b.A, session(7, "node-001"))
	if _, err := b.B.Disconnect(ctx, 7); err != nil {
		t.Fatal(err)
	}
	b.Clock.Advance(directory.TTL / 3)
	want := []directory.Notice{{Kind: directory.Disconnected, Session: s}}
	if waiting := beat(t, b.A, "node-001", true); !slices.Equal(waiting, want) {
		t.Errorf("waiting: %+v, want %+v", waiting, want)
	}
	for range 2 { // also when the answer to a beat was lost
		if ended, err := b.A.Renew(ctx, []directory.Session{s}); err != nil || !slices.Equal(ended, want) {
			t.Fatalf("renewal: %+v, %v", ended, err)
		}
		if err := b.A.Remove(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if p := lookup(t, b.B, 7); p.Online {
		t.Errorf("%+v", p)
	}
}

func testDrain(t *testing.T, b Backend) {
	ctx := context.Background()
	if err := b.A.RequestDrain(ctx, "node-077"); !errors.Is(err, directory.ErrNoNode) {
		t.Fatalf("a node that is not there: %v", err)
	}
	want := directory.Notice{Kind: directory.Drain}
	notices := watch(t, b.A, "node-001")
	told(t, notices, func() directory.Notice {
		if err := b.B.RequestDrain(ctx, "node-001"); err != nil {
			t.Fatal(err)
		}
		return want
	})
	if waiting := beat(t, b.A, "node-001", true); len(waiting) == 0 || waiting[0] != want {
		t.Errorf("waiting: %+v", waiting)
	}
	if waiting := beat(t, b.A, "node-001", true); len(waiting) != 0 {
		t.Errorf("told twice: %+v", waiting)
	}
	if err := b.B.RequestDrain(ctx, "node-001"); err != nil {
		t.Fatal(err)
	}
	if h, err := b.A.Beat(ctx, "node-001", "another"); err != nil || len(h.Notices) != 0 {
		t.Errorf("a node that starts anew hears %+v, %v", h, err)
	}
	b.Clock.Advance(directory.TTL)
	if err := b.B.RequestDrain(ctx, "node-001"); !errors.Is(err, directory.ErrNoNode) {
		t.Errorf("a node that fell silent: %v", err)
	}
}

// testRuns: a node that was killed and starts again shows none of its old sessions. The
// old process can change nothing if it wakes up.
func testRuns(t *testing.T, b Backend) {
	ctx := context.Background()
	old := register(t, b.A, session(7, "node-001"))
	other := register(t, b.A, session(8, "node-001"))
	register(t, b.A, session(9, "node-001"))
	b.Clock.Advance(time.Second)
	beat(t, b.A, "node-001", true)
	seen := b.Clock.Now()
	online(t, b.B, old)
	b.Clock.Advance(time.Second)
	if h, err := b.B.Beat(ctx, "node-001", "second"); err != nil || h.Known {
		t.Fatalf("the second run: %+v, %v", h, err)
	}
	for _, id := range []int64{7, 8} {
		if p := lookup(t, b.A, id); p.Online || !p.LastSeen.Equal(seen) {
			t.Errorf("client %d after the restart: %+v, want offline, seen %v", id, p, seen)
		}
	}
	if nodes, err := b.A.Disconnect(ctx, 9); err != nil || len(nodes) != 0 {
		t.Errorf("disconnected %v, %v", nodes, err)
	}
	again := of(old.Instance, 7, "node-001")
	again.Run, again.Session = "second", "s2"
	again = register(t, b.B, again)
	online(t, b.A, again)
	for range 2 {
		if _, err := b.A.Beat(ctx, "node-001", runOf("node-001")); !errors.Is(err, directory.ErrNodeTaken) {
			t.Errorf("the first run wakes up: %v", err)
		}
	}
	if err := errors.Join(b.A.Remove(ctx, old), b.A.Remove(ctx, other)); err != nil {
		t.Fatal(err)
	}
	renew(t, b.A, other)
	online(t, b.B, again)
	if p := lookup(t, b.B, 8); p.Online {
		t.Errorf("the first run has put a session back: %+v", p)
	}
	b.Clock.Advance(directory.TTL)
	if h, err := b.B.Beat(ctx, "node-001", "third"); err != nil || h.Known {
		t.Errorf("the third run: %+v, %v", h, err)
	}
}
