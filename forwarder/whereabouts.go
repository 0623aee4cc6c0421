package forwarder

import (
	"context"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

const (
	placeAge    = 5 * time.Second // a place is used without asking again; a wrong one is found out by using it
	placeWait   = time.Second     // for the directory
	placesKept  = 16384
	placesPause = time.Second // after the directory failed, before it is asked again for what is remembered
)

// place is where a client is connected.
type place struct{ node, address, session string }

// whereabouts remembers which forwarder has which client. It may be wrong: the
// forwarder that is reached knows, and says so, which makes its answer better
// than any entry's age. While the directory is away or was flushed, what is
// remembered is used however old it is, so that connections go on being made.
type whereabouts struct {
	directory directory.Directory
	nodes     directory.Nodes
	metrics   *Metrics
	now       func() time.Time

	mu      sync.Mutex
	clients map[int64]remembered  // guarded by mu; at most placesKept
	bridges map[string]remembered // guarded by mu; by node, so at most directory.MaxNodes
	calm    time.Time             // guarded by mu; the directory failed, and is left alone until then
}

// remembered is a place, or of a bridge its address, and when it was looked up.
type remembered struct {
	place
	at time.Time
}

func newWhereabouts(d directory.Directory, nodes directory.Nodes, metrics *Metrics, now func() time.Time) *whereabouts {
	return &whereabouts{directory: d, nodes: nodes, metrics: metrics, now: now,
		clients: map[int64]remembered{}, bridges: map[string]remembered{}}
}

// find gives where the client is, but not where it was tried in vain.
func (w *whereabouts) find(ctx context.Context, client int64, tried place) (place, bool) {
	w.mu.Lock()
	now := w.now()
	known, usable := w.clients[client]
	if bridge, ok := w.bridges[known.node]; ok {
		known.address = bridge.address // one for all of its clients, also when it has moved
	}
	usable = usable && known.place != tried
	calm := now.Before(w.calm)
	w.mu.Unlock()
	answer := func(how string) { w.metrics.located.WithLabelValues(how).Inc() }
	if usable && (calm || now.Sub(known.at) < placeAge) {
		answer("cache")
		return known.place, true
	}
	found, err := w.ask(ctx, client, tried)
	switch {
	case err != nil && ctx.Err() == nil:
		w.mu.Lock()
		w.calm = now.Add(placesPause)
		w.mu.Unlock()
		fallthrough
	case err != nil:
		answer("error")
		return known.place, usable
	case found == place{} && usable:
		answer("stale") // it has left, or the directory has lost it: one question to the forwarder tells
		return known.place, true
	case found == place{}, found == tried:
		answer("absent")
		return place{}, false
	}
	answer("directory")
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.clients[client]; !there && len(w.clients) >= placesKept {
		for any := range w.clients {
			delete(w.clients, any)
			break
		}
	}
	w.clients[client] = remembered{found, now}
	return found, true
}

// ask looks the client up in the directory. The zero place is offline.
func (w *whereabouts) ask(ctx context.Context, client int64, tried place) (place, error) {
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	found, err := w.directory.Lookup(ctx, client)
	if err != nil || len(found) != 1 || !found[0].Online {
		return place{}, err
	}
	at := place{node: found[0].Session.Node, session: found[0].Session.Session}
	at.address, err = w.bridge(ctx, at.node, at.node == tried.node)
	if err != nil || at.address == "" {
		return place{}, err
	}
	return at, nil
}

// bridge gives the address of a node's bridge, "" when it has none.
func (w *whereabouts) bridge(ctx context.Context, node string, again bool) (string, error) {
	w.mu.Lock()
	now := w.now()
	known, ok := w.bridges[node]
	w.mu.Unlock()
	if ok && !again && now.Sub(known.at) < placeAge {
		return known.address, nil
	}
	found, err := w.nodes.Nodes(ctx, node)
	if err != nil {
		return known.address, err
	}
	if len(found) == 0 {
		return known.address, nil // a node that has a session and no record was flushed, and will be back
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bridges[node] = remembered{place{node: node, address: found[0].Bridge}, now}
	return found[0].Bridge, nil
}

// forget drops a place that turned out to be wrong.
func (w *whereabouts) forget(client int64, at place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.clients[client]; known.node == at.node && known.session == at.session {
		delete(w.clients, client)
	}
}
