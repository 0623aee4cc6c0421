package forwarder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// cities is a directory that says what the test says.
type cities struct {
	directory.Directory
	places map[int64][]string // session@node, by client
	nodes  []directory.Node
	slow   time.Duration
	err    error
	asked  int
}

func (d *cities) Lookup(ctx context.Context, ids ...int64) ([]directory.Presence, error) {
	d.asked++
	select {
	case <-time.After(d.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	found := make([]directory.Presence, len(ids))
	for i, id := range ids {
		for _, at := range d.places[id] {
			session, node, _ := strings.Cut(at, "@")
			found[i].Sessions = append(found[i].Sessions, directory.Session{ClientID: id, Node: node, Session: session})
		}
	}
	return found, d.err
}

func (d *cities) Nodes(context.Context, ...string) ([]directory.Node, error) { return d.nodes, d.err }

func (d *cities) Survey(context.Context, string) ([]directory.Node, string, error) {
	return d.nodes, "", d.err
}

func (d *cities) Announce(context.Context, string, directory.Node) error { return nil }
func (d *cities) Withdraw(context.Context, string, string) error         { return nil }

func newCities() *cities {
	d := &cities{places: map[int64][]string{7: {"s1@a", "s2@b"}}}
	for _, id := range []string{"a", "b", "c"} {
		d.nodes = append(d.nodes, directory.Node{ID: id, Bridge: id + ":1", State: directory.NodeActive})
	}
	return d
}

func text(places []place) string {
	var all []string
	for _, p := range places {
		all = append(all, p.session+"@"+p.address)
	}
	return strings.Join(all, " ")
}

// The best place comes first: one that can be reached, then one that does not
// drain, then one that has less to do.
func TestBestPlaceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCities()
		w := newWhereabouts(d, d, NewMetrics(), time.Now)
		first := map[string]int{}
		for range 200 {
			places, _ := w.find(t.Context(), 7, false)
			first[places[0].node]++
		}
		if first["a"] < 50 || first["b"] < 50 {
			t.Errorf("equal places are not used equally: %v", first)
		}
		always := func(what, want string) {
			t.Helper()
			for range 20 {
				if places, _ := w.find(t.Context(), 7, false); text(places) != want {
					t.Fatalf("%s: %s, want %s", what, text(places), want)
				}
			}
		}
		w.suspect("a", false)
		always("a cannot be reached", "s2@b:1 s1@a:1")
		w.suspect("a", true)
		d.nodes[1].Streams = 5000
		w.note(d.nodes)
		always("b has more to do", "s1@a:1 s2@b:1")
		d.nodes[0].State = directory.NodeDraining
		w.note(d.nodes)
		always("a drains", "s2@b:1 s1@a:1")
		w.suspect("b", false)
		always("b cannot be reached", "s1@a:1 s2@b:1")
		time.Sleep(suspectTime)
		w.forget(7, place{node: "b", session: "s2"})
		always("the client is not at b", "s1@a:1")
	})
}

// A directory that is away or slow does not hold up who is remembered, however
// old that is, and one that has lost everything is not believed.
func TestRememberedWhileTheDirectoryIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCities()
		w := newWhereabouts(d, d, NewMetrics(), time.Now)
		d.places[7] = d.places[7][:1]
		find := func(what string, again bool, want string, most time.Duration) {
			t.Helper()
			began := time.Now()
			if places, _ := w.find(t.Context(), 7, again); text(places) != want {
				t.Errorf("%s: %q, want %q", what, text(places), want)
			}
			if d := time.Since(began); d > most {
				t.Errorf("%s: that took %v", what, d)
			}
		}
		find("looked up", false, "s1@a:1", 0)
		d.slow = time.Hour
		find("remembered", false, "s1@a:1", 0)
		time.Sleep(placeAge)
		find("too old", false, "s1@a:1", placeGlance)
		find("in calm", false, "s1@a:1", 0)
		time.Sleep(time.Hour)
		find("asked again because it did not do", true, "s1@a:1", placeWait)
		d.slow, d.err = 0, errors.New("away")
		time.Sleep(time.Hour)
		find("away", false, "s1@a:1", 0)
		d.err, d.places = nil, nil
		time.Sleep(time.Hour)
		find("flushed", false, "s1@a:1", 0)
		w.forget(7, place{node: "a", session: "s1"})
		find("and not there", true, "", 0)
	})
}

// Who may deliver for a client is who has it; a directory that cannot tell, and
// shows it, is no reason to refuse.
func TestWhoMayDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCities()
		d.places[8] = []string{"s3@c"}
		w := newWhereabouts(d, d, NewMetrics(), time.Now)
		want := func(what, node string, yes, known bool) {
			t.Helper()
			if y, k := w.isAt(t.Context(), 7, node, 8, "c"); y != yes || k != known {
				t.Errorf("%s: %v, %v; want %v, %v", what, y, k, yes, known)
			}
		}
		want("where it is", "a", true, true)
		want("where it is too", "b", true, true)
		want("where it is not", "c", false, true)
		asked := d.asked
		want("remembered", "a", true, true)
		if d.asked != asked {
			t.Error("asked for what is remembered")
		}
		d.places[7] = []string{"s4@c"}
		want("it has moved", "c", true, true)
		delete(d.places, 8)
		time.Sleep(placeAge)
		want("the directory has lost the witness", "b", false, false)
		d.err = errors.New("away")
		want("away", "b", false, false)
		want("away, and remembered", "c", true, true)
	})
}

// What is remembered is bounded, whatever is asked for.
func TestWhereaboutsAreBounded(t *testing.T) {
	d := newCities()
	w := newWhereabouts(d, d, NewMetrics(), time.Now)
	for client := range int64(2 * placesKept) {
		d.places = map[int64][]string{client: {"s@a"}}
		if places, _ := w.find(t.Context(), client, false); len(places) != 1 {
			t.Fatalf("client %d: %v", client, places)
		}
	}
	if len(w.clients) > placesKept || len(w.records) > 3 {
		t.Errorf("%d clients and %d nodes are remembered", len(w.clients), len(w.records))
	}
}

// Agents are told of other nodes in an order of their own, which a node that comes
// or goes does not change.
func TestOffer(t *testing.T) {
	n := &neighbours{self: "node-001"}
	if n.offer(7) != nil || n.elsewhere() {
		t.Error("alone, and there is an offer")
	}
	var nodes []directory.Node
	for i := range 12 {
		nodes = append(nodes, directory.Node{ID: directory.NodeID(i + 1), Agents: fmt.Sprintf("h%d:1", i+1), State: directory.NodeActive})
	}
	nodes[4].State, nodes[5].Agents = directory.NodeDraining, ""
	if !n.learn(nodes) || n.learn(nodes) {
		t.Error("a change is not noticed once")
	}
	second := map[string]int{}
	for client := range int64(1000) {
		offer := n.offer(client)
		if len(offer) != 1+maxOffered || offer[0].Node != "node-001" || offer[0].Address != "h1:1" {
			t.Fatalf("offered %v", offer)
		}
		second[offer[1].Node]++
	}
	for node, times := range second {
		if times < 50 || times > 200 {
			t.Errorf("%s is the first choice of %d clients of 1000", node, times)
		}
	}
	if second["node-005"]+second["node-006"] > 0 {
		t.Error("a node that takes nobody is offered")
	}
	several := slices.Clone(nodes)
	several[0].Also, several[1].Also = "[2001:db8::1]:1,h1.example:1", strings.Repeat("x", maxAddress)
	n.learn(several)
	if offer := n.offer(42); len(offer) != 3+maxOffered || offer[1].Node != "node-001" || offer[2].Address != "h1.example:1" {
		t.Errorf("offered with several addresses: %v", offer)
	}
	n.learn(nodes)
	before := n.offer(42)
	gone := before[3].Node
	n.learn(slices.DeleteFunc(slices.Clone(nodes), func(node directory.Node) bool { return node.ID == gone }))
	after := n.offer(42)
	for i, f := range after[:3] {
		if f.Node != before[i].Node {
			t.Errorf("place %d changed from %s to %s", i, before[i].Node, f.Node)
		}
	}
	if after[3].Node != before[4].Node {
		t.Errorf("behind it comes %s, want %s", after[3].Node, before[4].Node)
	}
	if n.learn(nil) {
		t.Error("a directory that has lost everything changes something")
	}
}
