// Package memory is the directory for a single process.
package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

const (
	// sweepEvery is the time between two deletions of data older than directory.Memory.
	sweepEvery = time.Hour
	// backlog is how many notices can wait for a slow watcher. Renew finds those that
	// do not fit.
	backlog = 1024
)

// Directory is a [directory.Directory] in memory.
type Directory struct {
	now func() time.Time

	mu       sync.Mutex
	clients  map[int64]*presence                       // guarded by mu
	watchers map[string]map[chan directory.Notice]bool // guarded by mu; by node
	leases   map[string]*beating                       // node sessions' leases; guarded by mu; by node
	nodes    map[int]lease                             // leases of node ids; guarded by mu
	owners   map[string]int                            // the last id of each owner; guarded by mu
	records  map[string]announced                      // guarded by mu; by node id
	portions map[int64]map[string]portion              // guarded by mu; by mapping and node
	swept    time.Time                                 // guarded by mu
}

// presence is where a client is or was.
type presence struct {
	instance string          // the instance that serves the client
	past     []string        // fenced instances, the latest one first
	epoch    directory.Epoch // the highest epoch so far
	places   map[string]*place
	seen     time.Time
}

// place is the client's session at one node. A place whose session has ended stays for
// a while, so that a late renewal does not restore the session.
type place struct {
	session directory.Session
	ended   directory.NoticeKind // "" = live; removed = ended by its own node
	expires time.Time
}

// removed marks a session that its own node has ended. Nobody is told of it.
const removed directory.NoticeKind = "removed"

// New gives an empty directory. With now nil it uses the system's clock.
func New(now func() time.Time) *Directory {
	if now == nil {
		now = time.Now
	}
	return &Directory{now: now, clients: map[int64]*presence{}, watchers: map[string]map[chan directory.Notice]bool{},
		leases: map[string]*beating{}, nodes: map[int]lease{}, owners: map[string]int{}, records: map[string]announced{},
		portions: map[int64]map[string]portion{}, swept: now()}
}

// Register implements directory.Directory.
func (d *Directory) Register(ctx context.Context, s directory.Session) (directory.Epoch, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.sweep(now)
	p := d.client(s.ClientID, now)
	if p.instance != s.Instance && slices.Contains(p.past, s.Instance) {
		return 0, directory.ErrSuperseded
	}
	d.takeOver(p, s.Instance)
	// The epoch is not below the clock, so that epochs rise even after all data was
	// lost.
	s.Epoch = max(p.epoch+1, directory.Epoch(now.UnixMilli()))
	p.hold(s, now)
	return s.Epoch, nil
}

// client gives the client's presence without expired places. The caller holds mu.
func (d *Directory) client(id int64, now time.Time) *presence {
	p := d.clients[id]
	if p == nil {
		p = &presence{places: map[string]*place{}}
		d.clients[id] = p
	}
	for node, at := range p.places {
		if !at.expires.After(now) {
			delete(p.places, node)
		}
	}
	return p
}

// takeOver makes instance the one that serves the client, and fences the sessions of
// the instance before it. The caller holds mu.
func (d *Directory) takeOver(p *presence, instance string) {
	if p.epoch > 0 && p.instance != instance {
		for _, at := range p.places {
			if at.ended == "" {
				d.tell(directory.Notice{Kind: directory.Fenced, Session: at.session})
			}
		}
		clear(p.places)
		p.past = slices.DeleteFunc(p.past, func(i string) bool { return i == instance })
		p.past = slices.Insert(p.past, 0, p.instance)
		p.past = p.past[:min(len(p.past), directory.MaxPast)]
	}
	p.instance = instance
}

// hold makes s the client's session at its node.
func (p *presence) hold(s directory.Session, now time.Time) {
	p.places[s.Node] = &place{session: s, expires: now.Add(directory.Kept)}
	p.epoch, p.seen = max(p.epoch, s.Epoch), now
}

// tell sends a node a notice about one of its sessions. The caller holds mu.
func (d *Directory) tell(n directory.Notice) { d.send(n.Session.Node, n.Session.Run, n) }

// send gives a notice to a node, at once and with the node's next beat. The caller
// holds mu.
func (d *Directory) send(node, run string, n directory.Notice) {
	if l := d.leases[node]; l != nil && l.run == run {
		l.waiting = append(l.waiting, n)
		l.waiting = l.waiting[max(0, len(l.waiting)-directory.MaxNotices):]
	}
	d.publish(node, n)
}

// publish gives a notice to the watchers of the node. The caller holds mu.
func (d *Directory) publish(node string, n directory.Notice) {
	for w := range d.watchers[node] {
		select {
		case w <- n:
		default:
		}
	}
}

// sweep deletes old data. The caller holds mu.
func (d *Directory) sweep(now time.Time) {
	if now.Sub(d.swept) < sweepEvery {
		return
	}
	d.swept = now
	for id, p := range d.clients {
		if now.Sub(p.seen) > directory.Memory {
			delete(d.clients, id)
		}
	}
}

// Renew implements directory.Directory.
func (d *Directory) Renew(ctx context.Context, sessions []directory.Session) (ended []directory.Notice, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range sessions {
		p := d.client(s.ClientID, now)
		at := p.places[s.Node]
		switch {
		case p.instance != s.Instance && p.epoch > s.Epoch, at != nil && at.session.Epoch > s.Epoch:
			ended = append(ended, directory.Notice{Kind: directory.Fenced, Session: s})
			continue
		case at != nil && at.session.Epoch == s.Epoch && at.ended == removed:
			continue
		case at != nil && at.session.Epoch == s.Epoch && at.ended != "":
			ended = append(ended, directory.Notice{Kind: at.ended, Session: s})
			continue
		}
		d.takeOver(p, s.Instance)
		p.hold(s, now)
	}
	return ended, nil
}

// live reports whether the session is live. The caller holds mu.
func (d *Directory) live(at *place, now time.Time) bool {
	l := d.leases[at.session.Node]
	return at.ended == "" && at.expires.After(now) && l != nil && l.run == at.session.Run && l.beaten.Add(directory.TTL).After(now)
}

// beaten gives the time of the last beat of the session's node. The caller holds mu.
func (d *Directory) beaten(s directory.Session) time.Time {
	switch l := d.leases[s.Node]; {
	case l != nil && l.run == s.Run:
		return l.beaten
	case l != nil && l.past == s.Run:
		return l.pastBeaten
	}
	return time.Time{}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Remove implements directory.Directory.
func (d *Directory) Remove(ctx context.Context, s directory.Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.clients[s.ClientID]
	if p == nil {
		return nil
	}
	now := d.now()
	if at := p.places[s.Node]; at != nil && at.session.Epoch == s.Epoch && at.ended == "" && at.expires.After(now) {
		at.ended, at.expires, p.seen = removed, now.Add(directory.TTL), now
	}
	return nil
}

// Disconnect implements directory.Directory.
func (d *Directory) Disconnect(ctx context.Context, clientID int64) (nodes []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.clients[clientID]
	if p == nil {
		return nil, nil
	}
	now := d.now()
	for node, at := range p.places {
		if at.ended != "" || !at.expires.After(now) {
			continue
		}
		if d.live(at, now) {
			nodes = append(nodes, node)
		}
		at.ended, at.expires, p.seen = directory.Disconnected, now.Add(directory.TTL), now
		d.tell(directory.Notice{Kind: directory.Disconnected, Session: at.session})
	}
	slices.Sort(nodes)
	return nodes, nil
}

// Lookup implements directory.Directory.
func (d *Directory) Lookup(ctx context.Context, clientIDs ...int64) ([]directory.Presence, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	found := make([]directory.Presence, len(clientIDs))
	for i, id := range clientIDs {
		p := d.clients[id]
		if p == nil {
			continue
		}
		found[i].LastSeen = p.seen
		for _, at := range p.places {
			if at.ended == "" && at.expires.After(now) {
				found[i].LastSeen = latest(found[i].LastSeen, d.beaten(at.session))
			}
			if d.live(at, now) {
				found[i].Sessions = append(found[i].Sessions, at.session)
			}
		}
		slices.SortFunc(found[i].Sessions, func(a, b directory.Session) int { return cmp.Compare(b.Epoch, a.Epoch) })
		found[i].Online = len(found[i].Sessions) > 0
	}
	return found, nil
}

// Watch implements directory.Directory.
func (d *Directory) Watch(ctx context.Context, node string, fn func(directory.Notice)) error {
	notices := make(chan directory.Notice, backlog)
	d.mu.Lock()
	if d.watchers[node] == nil {
		d.watchers[node] = map[chan directory.Notice]bool{}
	}
	d.watchers[node][notices] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if delete(d.watchers[node], notices); len(d.watchers[node]) == 0 {
			delete(d.watchers, node)
		}
	}()
	for {
		select {
		case n := <-notices:
			fn(n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
