package directorytest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

func nodesOf(d directory.Directory) directory.Nodes { return d.(directory.Nodes) }

func announce(t testing.TB, d directory.Directory, owner string, n directory.Node) {
	t.Helper()
	if err := nodesOf(d).Announce(context.Background(), owner, n); err != nil {
		t.Fatalf("announce %s: %v", n.ID, err)
	}
}

func nodesAre(t testing.TB, d directory.Directory, ids []string, want ...directory.Node) {
	t.Helper()
	found, err := nodesOf(d).Nodes(context.Background(), ids...)
	if err != nil || !slices.Equal(found, want) {
		t.Fatalf("nodes %v are %+v, %v; want %+v", ids, found, err, want)
	}
}

func node(id, bridge string) directory.Node {
	return directory.Node{ID: id, Bridge: bridge, Agents: "192.0.2.1:8080", Version: "1.2.3", State: directory.NodeActive,
		Clients: 3, Streams: 4, Since: time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC)}
}

func testNodes(t *testing.T, b Backend) {
	nodesAre(t, b.A, nil)
	nodesAre(t, b.A, []string{"node-001", "elsewhere"})
	ann, bob := node(lease(t, b.A, "ann"), "192.0.2.1:50052"), node(lease(t, b.B, "bob"), "192.0.2.2:50052")
	announce(t, b.B, "bob", bob)
	announce(t, b.A, "ann", ann)
	ann.Seen, bob.Seen = b.Clock.Now(), b.Clock.Now()
	nodesAre(t, b.B, nil, ann, bob)
	nodesAre(t, b.A, []string{bob.ID}, bob)

	b.Clock.Advance(directory.TTL / 2)
	lease(t, b.A, "ann")
	ann.State, ann.Clients = directory.NodeDraining, 0
	announce(t, b.A, "ann", ann)
	ann.Seen = b.Clock.Now()
	b.Clock.Advance(directory.TTL / 2)
	nodesAre(t, b.B, nil, ann) // bob was silent for too long
	if b.Flush != nil {
		b.Flush()
		nodesAre(t, b.B, nil)
		lease(t, b.A, "ann")
		announce(t, b.A, "ann", ann)
		ann.Seen = b.Clock.Now()
		nodesAre(t, b.B, nil, ann)
	}
	for range 2 {
		if err := nodesOf(b.A).Withdraw(context.Background(), "ann", ann.ID); err != nil {
			t.Fatal(err)
		}
	}
	nodesAre(t, b.B, nil)
	if id := lease(t, b.A, "ann"); id != ann.ID {
		t.Errorf("withdrawing took the id: %s, was %s", id, ann.ID)
	}
}

func testNodesFenced(t *testing.T, b Backend) {
	ctx := context.Background()
	if err := nodesOf(b.A).Announce(ctx, "ann", node("node-001", "a")); !errors.Is(err, directory.ErrNotLeased) {
		t.Errorf("announced without a lease: %v", err)
	}
	old := node(lease(t, b.A, "ann"), "192.0.2.1:50052")
	announce(t, b.A, "ann", old)
	b.Clock.Advance(directory.TTL - time.Millisecond)
	announce(t, b.A, "ann", old) // the record outlives the lease
	b.Clock.Advance(directory.IDKept + time.Millisecond)
	heir := node(lease(t, b.B, "bob"), "192.0.2.2:50052")
	if heir.ID != old.ID {
		t.Fatalf("bob leases %s", heir.ID)
	}
	nodesAre(t, b.A, nil) // and not at ann's earlier id
	announce(t, b.B, "bob", heir)
	if err := nodesOf(b.A).Announce(ctx, "ann", old); !errors.Is(err, directory.ErrNotLeased) {
		t.Errorf("announced over the heir: %v", err)
	}
	if err := nodesOf(b.A).Withdraw(ctx, "ann", old.ID); err != nil {
		t.Error(err)
	}
	heir.Seen = b.Clock.Now()
	nodesAre(t, b.A, nil, heir)
}

// testSurvey: a caller that asks often is told only of changes, and a changed load is
// no change.
func testSurvey(t *testing.T, b Backend) {
	ctx, mark := context.Background(), ""
	survey := func(d directory.Directory, what string, want ...directory.Node) {
		t.Helper()
		b.Clock.Advance(time.Second)
		found, now, err := nodesOf(d).Survey(ctx, mark)
		if err != nil || now == "" || !slices.EqualFunc(found, want, func(a, b directory.Node) bool { return a.ID == b.ID && a.State == b.State }) {
			t.Fatalf("%s: surveyed %+v, %q, %v; want %+v", what, found, now, err, want)
		}
		if (now == mark) != (want == nil) {
			t.Fatalf("%s: mark %q after %q", what, now, mark)
		}
		mark = now
	}
	none := []directory.Node{}
	survey(b.A, "at first", none...)
	survey(b.B, "still nobody")
	ann, bob := node(lease(t, b.A, "ann"), "192.0.2.1:50052"), node(lease(t, b.B, "bob"), "192.0.2.2:50052")
	announce(t, b.A, "ann", ann)
	survey(b.B, "one has come", ann)
	announce(t, b.B, "bob", bob)
	survey(b.A, "another has come", ann, bob)
	survey(b.B, "nothing has changed")
	b.Clock.Advance(directory.TTL / 2)
	lease(t, b.A, "ann")
	ann.Clients, ann.Streams = 9, 9
	announce(t, b.A, "ann", ann)
	survey(b.A, "only a load has changed")
	ann.State = directory.NodeDraining
	announce(t, b.A, "ann", ann)
	survey(b.B, "one drains", ann, bob)
	b.Clock.Advance(directory.TTL / 2)
	survey(b.A, "one fell silent", ann)
	if b.Flush != nil {
		b.Flush()
		survey(b.A, "all was lost", none...)
		lease(t, b.A, "ann")
		announce(t, b.A, "ann", ann)
		survey(b.A, "it is back", ann)
	}
	if err := nodesOf(b.A).Withdraw(ctx, "ann", ann.ID); err != nil {
		t.Fatal(err)
	}
	survey(b.B, "the last has left", none...)
}
