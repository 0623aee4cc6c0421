package directorytest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tunnox-net/tunnox/directory"
)

// holder is a node that divides the connections of a mapping with other nodes.
type holder struct {
	d         directory.Directory
	node, run string
	mapping   int64
	sequence  int64
	held      int64
}

func (h *holder) beat(t tester) {
	t.Helper()
	if _, err := h.d.Beat(context.Background(), h.node, h.run); err != nil {
		t.Fatalf("beat of %s: %v", h.node, err)
	}
}

// reserve asks for a portion and remembers what is held from then on.
func (h *holder) reserve(t tester, want, limit int64) directory.Granted {
	t.Helper()
	h.sequence++
	g, err := h.d.(directory.Portions).Reserve(context.Background(), h.portion(want, limit))
	if err != nil {
		t.Fatalf("%s wants %d of %d: %v", h.node, want, limit, err)
	}
	if g.Held < h.held || g.Held > max(h.held, want) {
		t.Fatalf("%s holds %d, wants %d and gets %d", h.node, h.held, want, g.Held)
	}
	h.held = g.Held
	return g
}

func (h *holder) portion(want, limit int64) directory.Portion {
	return directory.Portion{Mapping: h.mapping, Node: h.node, Run: h.run, Sequence: h.sequence, Held: h.held, Want: want, Limit: limit}
}

// giveBack keeps only so many connections.
func (h *holder) giveBack(t tester, keep, limit int64) {
	t.Helper()
	h.held = keep
	h.reserve(t, keep, limit)
}

type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

var mappings = int64(7000)

// holders are nodes with a lease that divide a new mapping, after everything has
// settled.
func holders(t tester, b Backend, n int) (all []*holder) {
	t.Helper()
	mappings++
	for i := range n {
		h := &holder{d: []directory.Directory{b.A, b.B}[i%2], node: directory.NodeID(i + 1), mapping: mappings}
		h.run = fmt.Sprintf("run-%d-of-%s", mappings, h.node)
		h.beat(t)
		all = append(all, h)
	}
	b.Clock.Advance(directory.Settle)
	for _, h := range all {
		h.beat(t)
	}
	return all
}

func testPortions(t *testing.T, b Backend) {
	all := holders(t, b, 3)
	one, two, three := all[0], all[1], all[2]
	holds := func(h *holder, want, gets int64) {
		t.Helper()
		if g := h.reserve(t, want, 10); g.Held != gets || !g.Settled || g.Over {
			t.Fatalf("%s wants %d and gets %+v, want %d", h.node, want, g, gets)
		}
	}
	told := watch(t, b.B, one.node)
	holds(one, 4, 4)
	holds(two, 5, 5)
	holds(three, 5, 1)
	holds(one, 4, 4) // asking twice is the same as asking once
	one.giveBack(t, 2, 10)
	holds(two, 10, 7)
	// Nothing that is held is taken away, also when the limit is lower now.
	if g := two.reserve(t, 8, 3); g.Held != 7 || !g.Over {
		t.Errorf("under a lower limit: %+v", g)
	}
	// When a node could use more, the nodes that hold some are told.
	deadline := time.After(10 * time.Second)
	for heard := false; !heard; {
		three.reserve(t, 9, 10)
		select {
		case n := <-told:
			if n != (directory.Notice{Kind: directory.Wanted, Mapping: one.mapping}) {
				t.Fatalf("told %+v", n)
			}
			heard = true
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("nobody is told")
		}
	}
	// A call that arrives after a later one changes nothing.
	late := one.portion(10, 10)
	late.Sequence--
	if _, err := one.d.(directory.Portions).Reserve(t.Context(), late); !errors.Is(err, directory.ErrLate) {
		t.Errorf("a late call: %v", err)
	}
	two.giveBack(t, 0, 10)
	holds(three, 8, 8)
	holds(two, 1, 0)
}

// testPortionsEnd: a portion belongs to its node while the lease of that run is live.
func testPortionsEnd(t *testing.T, b Backend) {
	all := holders(t, b, 3)
	one, two, three := all[0], all[1], all[2]
	one.reserve(t, 6, 10)
	two.reserve(t, 4, 10)
	b.Clock.Advance(directory.TTL - time.Millisecond)
	if _, err := two.d.Beat(t.Context(), three.node, three.run); err != nil {
		t.Fatal(err)
	}
	if g := three.reserve(t, 10, 10); g.Held != 0 {
		t.Errorf("a moment before the leases end: %+v", g)
	}
	two.beat(t)
	b.Clock.Advance(time.Millisecond)
	if g := three.reserve(t, 10, 10); g.Held != 6 {
		t.Errorf("one is dead: %+v", g)
	}
	if _, err := one.d.(directory.Portions).Reserve(t.Context(), one.portion(6, 10)); !errors.Is(err, directory.ErrNoLease) {
		t.Errorf("without a lease: %v", err)
	}
	// A node that starts again holds nothing.
	again := *two
	again.run, again.held, again.sequence = "again", 0, 0
	again.beat(t)
	if g := three.reserve(t, 10, 10); g.Held != 10 {
		t.Errorf("another was started anew: %+v", g)
	}
	if _, err := two.d.(directory.Portions).Reserve(t.Context(), two.portion(4, 10)); !errors.Is(err, directory.ErrNoLease) {
		t.Errorf("its last run: %v", err)
	}
	if g := again.reserve(t, 1, 10); g.Held != 0 {
		t.Errorf("its present run: %+v", g)
	}
}

// testPortionsFlushed: after a flush no portion grows until all nodes have had the time
// to report what they hold.
func testPortionsFlushed(t *testing.T, b Backend) {
	if b.Flush == nil {
		return
	}
	all := holders(t, b, 2)
	one, two := all[0], all[1]
	since := func() string {
		t.Helper()
		mark, err := one.d.(directory.Portions).Since(t.Context())
		if err != nil || mark == "" {
			t.Fatalf("since %q, %v", mark, err)
		}
		return mark
	}
	one.reserve(t, 10, 10)
	before := since()
	b.Clock.Advance(time.Second)
	if since() != before {
		t.Fatal("it changes by itself")
	}
	b.Flush()
	two.beat(t)
	if g := two.reserve(t, 10, 10); g.Held != 0 || g.Settled || g.Since == before {
		t.Fatalf("at once: %+v", g)
	}
	b.Clock.Advance(directory.Settle - time.Millisecond)
	if g := two.reserve(t, 10, 10); g.Held != 0 || g.Settled || g.Since != since() {
		t.Fatalf("a moment before: %+v", g)
	}
	one.beat(t)
	if g := one.reserve(t, 10, 10); g.Held != 10 {
		t.Fatalf("what is held: %+v", g)
	}
	b.Clock.Advance(time.Millisecond)
	if g := two.reserve(t, 10, 10); g.Held != 0 || !g.Settled {
		t.Fatalf("settled: %+v", g)
	}
	one.giveBack(t, 3, 10)
	if g := two.reserve(t, 10, 10); g.Held != 7 {
		t.Fatalf("given back: %+v", g)
	}
}

// testPortionsAtRandom: nodes ask, give back and die at random, and data is lost. They
// never hold more than the limit together, and no connection is lost for good.
func testPortionsAtRandom(t *testing.T, b Backend) {
	rounds := 0
	rapid.Check(t, func(r *rapid.T) {
		limit := rapid.Int64Range(0, 20).Draw(r, "limit")
		all := holders(r, b, rapid.IntRange(1, 4).Draw(r, "nodes"))
		check := func() {
			sum := int64(0)
			for _, h := range all {
				sum += h.held
			}
			if sum > limit {
				r.Fatalf("%d of %d are held", sum, limit)
			}
		}
		for range rapid.IntRange(10, 20).Draw(r, "rounds") {
			rounds++
			h := rapid.SampledFrom(all).Draw(r, "node")
			switch what := rapid.IntRange(0, 11).Draw(r, "what"); {
			case what < 6:
				want := rapid.Int64Range(h.held, limit+1).Draw(r, "want")
				before, gets := int64(0), int64(0)
				for _, other := range all {
					if other != h {
						before += other.held
					}
				}
				if gets = h.reserve(r, want, limit).Held; gets != min(want, limit-before) {
					r.Fatalf("wanted %d of %d, others hold %d, got %d", want, limit, before, gets)
				}
			case what < 9:
				h.giveBack(r, rapid.Int64Range(0, h.held).Draw(r, "keep"), limit)
			case what == 9: // it dies, and starts again
				for range 3 {
					b.Clock.Advance(directory.TTL / 3)
					for _, other := range all {
						if other != h {
							other.beat(r)
						}
					}
				}
				h.held, h.sequence, h.run = 0, 0, h.run+"-"+strconv.Itoa(rounds)
				h.beat(r)
			case what == 10: // it starts again at once
				h.held, h.sequence, h.run = 0, 0, h.run+"-"+strconv.Itoa(rounds)
				h.beat(r)
			case b.Flush != nil:
				b.Flush()
				h.beat(r)
				h.reserve(r, limit, limit)
				check()
				for _, other := range rapid.Permutation(all).Draw(r, "order") {
					other.beat(r)
					other.reserve(r, rapid.Int64Range(other.held, limit).Draw(r, "at once"), limit)
					check()
				}
				b.Clock.Advance(directory.Settle)
			}
			check()
		}
		for _, h := range all {
			h.giveBack(r, 0, limit)
		}
		for _, h := range all {
			if g := h.reserve(r, limit, limit); g.Held != limit {
				r.Fatalf("after all was given back: %+v of %d", g, limit)
			}
			h.giveBack(r, 0, limit)
		}
	})
	t.Logf("%d rounds", rounds)
}
