package forwarder

import (
	"cmp"
	"context"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

const (
	placeAge    = 5 * time.Second       // a place is used without asking again; a wrong one is found out by using it
	placeWait   = time.Second           // for the directory
	placeGlance = 20 * time.Millisecond // the same, when something is remembered that will do
	placesKept  = 16384
	placesPause = time.Second     // after the directory failed, before it is asked again for what is remembered
	suspectTime = 3 * time.Second // a node that could not be reached comes last for so long
)

// place is where a client is connected.
type place struct{ node, address, session string }

// whereabouts remembers which forwarders have which client. It may be wrong: the
// forwarder that is reached knows, and says so, which makes its answer better
// than any entry's age. While the directory is away or was flushed, what is
// remembered is used however old it is, so that connections go on being made.
type whereabouts struct {
	directory directory.Directory
	nodes     directory.Nodes
	metrics   *Metrics
	now       func() time.Time

	mu       sync.Mutex
	clients  map[int64]remembered // guarded by mu; at most placesKept
	records  map[string]record    // guarded by mu; by node, so at most directory.MaxNodes
	suspects map[string]time.Time // guarded by mu; the same, until when
	calm     time.Time            // guarded by mu; the directory failed, and is left alone until then
}

// remembered is where a client's sessions are, without addresses, and when that
// was looked up.
type remembered struct {
	places []place
	at     time.Time
}

// record is a node as it was when it was looked up.
type record struct {
	directory.Node
	at time.Time
}

func newWhereabouts(d directory.Directory, nodes directory.Nodes, metrics *Metrics, now func() time.Time) *whereabouts {
	return &whereabouts{directory: d, nodes: nodes, metrics: metrics, now: now,
		clients: map[int64]remembered{}, records: map[string]record{}, suspects: map[string]time.Time{}}
}

// find gives where the client may be, the best place first. What is remembered
// serves for a while; again asks the directory, because that did not do. asked
// tells whether it was asked, so that asking once more is no use.
func (w *whereabouts) find(ctx context.Context, client int64, again bool) (places []place, asked bool) {
	w.mu.Lock()
	now := w.now()
	known, usable := w.clients[client]
	calm := now.Before(w.calm)
	w.mu.Unlock()
	answer := func(how string) { w.metrics.located.WithLabelValues(how).Inc() }
	if usable && (calm || !again && now.Sub(known.at) < placeAge) {
		answer("cache")
		return w.order(known.places), calm
	}
	found, err := w.ask(ctx, client, again, usable && !again)
	switch {
	case err != nil && ctx.Err() == nil:
		w.rest()
		fallthrough
	case err != nil:
		answer("error")
		return w.order(known.places), true
	case len(found) == 0 && usable:
		answer("stale") // it has left, or the directory has lost it: one question to a forwarder tells
		return w.order(known.places), true
	case len(found) == 0:
		answer("absent")
		return nil, true
	}
	answer("directory")
	w.remember(client, found, now)
	return w.order(found), true
}

func (w *whereabouts) remember(client int64, found []place, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.clients[client]; !there && len(w.clients) >= placesKept {
		for any := range w.clients {
			delete(w.clients, any)
			break
		}
	}
	w.clients[client] = remembered{found, at}
}

// rest leaves the directory alone for a while, after it failed or was too slow for
// what is remembered.
func (w *whereabouts) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = w.now().Add(placesPause)
}

// ask looks the client up in the directory, and the addresses of where it is.
func (w *whereabouts) ask(ctx context.Context, client int64, again, glance bool) ([]place, error) {
	limit := placeWait
	if glance {
		limit = placeGlance
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, err := w.directory.Lookup(ctx, client)
	if err != nil || len(found) != 1 {
		return nil, err
	}
	places := placesOf(found[0])
	return places, w.learn(ctx, places, again)
}

func placesOf(p directory.Presence) (places []place) {
	for _, s := range p.Sessions {
		places = append(places, place{node: s.Node, session: s.Session})
	}
	return places
}

// learn makes sure that the addresses of the places are known, and fresh if what
// is known did not do.
func (w *whereabouts) learn(ctx context.Context, places []place, again bool) error {
	var ids []string
	w.mu.Lock()
	now := w.now()
	for _, at := range places {
		if r, ok := w.records[at.node]; !ok || again || now.Sub(r.at) > 2*placeAge {
			ids = append(ids, at.node)
		}
	}
	w.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	found, err := w.nodes.Nodes(ctx, ids...)
	if err != nil {
		return err
	}
	w.note(found)
	return nil
}

// survey gives all nodes, if they are others than the mark stands for, and
// remembers them.
func (w *whereabouts) survey(ctx context.Context, mark string) (found []directory.Node, now string, err error) {
	ctx, cancel := context.WithTimeout(ctx, directoryWait)
	defer cancel()
	if found, now, err = w.nodes.Survey(ctx, mark); err == nil {
		w.note(found)
	}
	return found, now, err
}

// note remembers nodes. One that is not among them keeps its record: a node that
// has sessions and no record was flushed, and will be back.
func (w *whereabouts) note(nodes []directory.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, n := range nodes {
		w.records[n.ID] = record{n, now}
	}
}

// order completes places with the addresses of their nodes, one for all clients
// there also when it has moved, and puts the best first: nodes that can be
// reached before those that could not just now, active before draining, and less
// loaded before clearly more loaded. A place without an address cannot be used.
func (w *whereabouts) order(places []place) []place {
	w.mu.Lock()
	defer w.mu.Unlock()
	type choice struct {
		place
		badness [3]int
		chance  uint32
	}
	now := w.now()
	var choices []choice
	for _, at := range places {
		r := w.records[at.node]
		if r.Bridge == "" {
			continue
		}
		c := choice{place: at, chance: rand.Uint32()}
		c.address = r.Bridge
		if now.Before(w.suspects[at.node]) {
			c.badness[0] = 1
		}
		if r.State == directory.NodeDraining {
			c.badness[1] = 1
		}
		c.badness[2] = bits.Len(uint(r.Streams) / 64) // seconds old, so no finer than this
		choices = append(choices, c)
	}
	slices.SortFunc(choices, func(a, b choice) int {
		return cmp.Or(slices.Compare(a.badness[:], b.badness[:]), cmp.Compare(a.chance, b.chance))
	})
	ordered := make([]place, len(choices))
	for i, c := range choices {
		ordered[i] = c.place
	}
	return ordered
}

// forget drops a place that turned out to be wrong.
func (w *whereabouts) forget(client int64, wrong place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known, ok := w.clients[client]
	if !ok {
		return
	}
	known.places = slices.DeleteFunc(slices.Clone(known.places), func(at place) bool {
		return at.node == wrong.node && at.session == wrong.session
	})
	if len(known.places) == 0 {
		delete(w.clients, client)
		return
	}
	w.clients[client] = known
}

// suspect notes whether the node could be reached.
func (w *whereabouts) suspect(node string, reached bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reached {
		delete(w.suspects, node)
	} else {
		w.suspects[node] = w.now().Add(suspectTime)
	}
}

// isAt tells whether the client is connected at the node. known is false when the
// directory cannot tell: it is away, or it has lost sessions, as it shows by not
// having the one of witness at this node, which is here.
func (w *whereabouts) isAt(ctx context.Context, client int64, node string, witness int64, here string) (yes, known bool) {
	at := func(places []place, node string) bool {
		return slices.ContainsFunc(places, func(p place) bool { return p.node == node })
	}
	w.mu.Lock()
	now := w.now()
	remembered := w.clients[client]
	calm := now.Before(w.calm)
	w.mu.Unlock()
	was := at(remembered.places, node)
	switch {
	case was && (calm || now.Sub(remembered.at) < placeAge):
		return true, true
	case calm:
		return false, false
	}
	limit := placeWait
	if was {
		limit = placeGlance
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, err := w.directory.Lookup(asking, client, witness)
	if err != nil || len(found) != 2 {
		if ctx.Err() == nil {
			w.rest()
		}
		return was, was
	}
	places := placesOf(found[0])
	if len(places) > 0 {
		w.remember(client, places, now)
	}
	if at(places, node) {
		return true, true
	}
	return false, at(placesOf(found[1]), here)
}

// lets tells whether something public comes in at a node, by its record. known is false
// when the directory cannot tell.
func (w *whereabouts) lets(ctx context.Context, node string, in func(directory.Node) bool) (yes, known bool) {
	has := func() (yes, known bool, age time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		r, known := w.records[node]
		return known && in(r.Node), known, w.now().Sub(r.at)
	}
	if yes, _, age := has(); yes && age < placeAge {
		return true, true
	}
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	err := w.learn(ctx, []place{{node: node}}, true)
	yes, known, _ = has()
	return yes, known && (err == nil || yes)
}
