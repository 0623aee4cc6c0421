package directorytest

import (
	"context"
	"errors"
	"testing"

	"github.com/tunnox-net/tunnox/directory"
)

func testExpel(t *testing.T, b Backend) {
	ctx := context.Background()
	lease := func(owner, want string) {
		t.Helper()
		if id, err := b.A.LeaseID(ctx, owner); err != nil || id != want {
			t.Errorf("%s leased %s, %v, want %s", owner, id, err, want)
		}
	}
	lease("ann", "node-001")
	lease("bob", "node-002")
	nodes := b.A.(directory.Nodes)
	for _, n := range []directory.Node{{ID: "node-001"}, {ID: "node-002"}} {
		if err := nodes.Announce(ctx, map[string]string{"node-001": "ann", "node-002": "bob"}[n.ID], n); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range []string{"node-001", "node-002"} {
		if _, err := b.A.Register(ctx, session(7, node)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.B.Expel(ctx, "node-001"); err != nil {
		t.Fatal(err)
	}
	if there, err := nodes.Nodes(ctx); err != nil || len(there) != 1 || there[0].ID != "node-002" {
		t.Errorf("the nodes are %v, %v", there, err)
	}
	found, err := b.B.Lookup(ctx, 7)
	if err != nil || len(found[0].Sessions) != 1 || found[0].Sessions[0].Node != "node-002" {
		t.Errorf("the sessions are %+v, %v", found, err)
	}
	if _, err := b.A.Beat(ctx, "node-001", runOf("node-001")); !errors.Is(err, directory.ErrNodeTaken) {
		t.Errorf("the expelled run beats on: %v", err)
	}
	if err := nodes.Announce(ctx, "ann", directory.Node{ID: "node-001"}); !errors.Is(err, directory.ErrNotLeased) {
		t.Errorf("the expelled node announced itself: %v", err)
	}
	lease("ann", "node-003")
	b.Clock.Advance(2 * directory.IDKept)
	lease("cid", "node-002")
	if err := b.A.Expel(ctx, "node-001"); err != nil { // a repeat
		t.Fatal(err)
	}
	if err := b.A.Expel(ctx, "node-999"); err != nil { // one that never was
		t.Fatal(err)
	}
}
