package projectionstest

import (
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
)

func testCheck(t *testing.T, b Backend) {
	ctx := t.Context()
	live, ok := b.Store.(projections.Dumper)
	if !ok {
		t.Fatalf("a %T cannot be dumped", b.Store)
	}
	log := NewLog(0)
	h := NewHistory(log, Seeded(7))
	grow(h, 300)
	check := func() projections.Checked {
		t.Helper()
		c, err := projections.Check(ctx, log, live, memory.New(), projections.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p, stop := start(t, log, b.Store)
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	var growing sync.WaitGroup
	growing.Go(func() { grow(h, 500) })
	for range 3 {
		if c := check(); len(c.Differences) != 0 || c.Rows == 0 || c.Members == 0 {
			t.Errorf("while the log grows: %+v", c)
		}
	}
	growing.Wait()
	equal(t, log, b.Store)
	stop()

	// No projector has made this.
	at, err := b.Store.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	users, err := b.Store.List(ctx, string(projections.AllUsers), 0, 2)
	if err != nil || len(users) < 2 {
		t.Fatalf("%d users, %v", len(users), err)
	}
	changed, gone := projections.Key{Kind: projections.Users, ID: users[0]}, projections.Key{Kind: projections.Users, ID: users[1]}
	err = b.Store.Apply(ctx, projections.Batch{From: at, To: at,
		Put:    []projections.Row{{Key: changed, Value: []byte(`{"username":"eve"}`)}},
		Delete: []projections.Key{gone},
		Add:    []projections.Member{{Index: string(projections.AllUsers), ID: domain.FirstUserID + 1_000_000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := check()
	if len(c.Differences) != 3 || !strings.Contains(c.Differences[1].Live, "eve") || c.Differences[2].Live != "" || c.Differences[0].Want != "" {
		t.Errorf("found %+v", c.Differences)
	}
	if _, err := projections.NewProjector(log, b.Store, projections.Options{}).Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	if c := check(); len(c.Differences) != 0 {
		t.Errorf("after a rebuild: %+v", c.Differences)
	}
}
