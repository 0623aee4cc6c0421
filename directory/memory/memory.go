// Package memory is the directory of a single process.
package memory

import (
	"context"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

const (
	// sweepEvery is how often what is older than directory.Memory is forgotten.
	sweepEvery = time.Hour
	// backlog bounds the notices a slow watcher has waiting; Renew finds the rest.
	backlog = 1024
)

// Directory is a [directory.Directory] in memory.
type Directory struct {
	now func() time.Time

	mu       sync.Mutex
	clients  map[int64]*place                           // guarded by mu
	watchers map[string]map[chan directory.Session]bool // guarded by mu; by node
	nodes    map[int]lease                              // guarded by mu
	owners   map[string]int                             // guarded by mu; the id an owner had last
	records  map[string]announced                       // guarded by mu; by node id
	swept    time.Time                                  // guarded by mu
}

// place is where a client is, or was.
type place struct {
	session directory.Session
	epoch   directory.Epoch
	held    bool // there is a session, alive until expires
	expires time.Time
	seen    time.Time
}

type lease struct {
	owner   string
	expires time.Time
}

// announced is a node's record.
type announced struct {
	node    directory.Node
	expires time.Time
}

// New gives an empty directory; now may be nil for the system's clock.
func New(now func() time.Time) *Directory {
	if now == nil {
		now = time.Now
	}
	return &Directory{now: now, clients: map[int64]*place{}, watchers: map[string]map[chan directory.Session]bool{},
		nodes: map[int]lease{}, owners: map[string]int{},
		records: map[string]announced{}, swept: now()}
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
	p := d.clients[s.ClientID]
	if p == nil {
		p = &place{}
		d.clients[s.ClientID] = p
	}
	d.fence(p, now)
	// Not below the clock, so that epochs rise also when all was forgotten.
	s.Epoch = max(p.epoch+1, directory.Epoch(now.UnixMilli()))
	p.hold(s, now)
	return s.Epoch, nil
}

// hold makes s the client's session.
func (p *place) hold(s directory.Session, now time.Time) {
	p.session, p.epoch, p.held, p.expires, p.seen = s, s.Epoch, true, now.Add(directory.TTL), now
}

func (p *place) online(now time.Time) bool { return p.held && p.expires.After(now) }

// fence tells the node of the live session, if there is one. It needs mu.
func (d *Directory) fence(p *place, now time.Time) {
	if !p.online(now) {
		return
	}
	for w := range d.watchers[p.session.Node] {
		select {
		case w <- p.session:
		default:
		}
	}
}

// sweep needs mu.
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
func (d *Directory) Renew(ctx context.Context, sessions []directory.Session) (fenced []directory.Session, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range sessions {
		p := d.clients[s.ClientID]
		switch {
		case p == nil:
			p = &place{}
			d.clients[s.ClientID] = p
			p.hold(s, now)
		case p.epoch > s.Epoch:
			fenced = append(fenced, s)
		case p.epoch < s.Epoch:
			d.fence(p, now)
			p.hold(s, now)
		case p.held:
			p.hold(s, now)
		}
	}
	return fenced, nil
}

// Remove implements directory.Directory.
func (d *Directory) Remove(ctx context.Context, s directory.Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.clients[s.ClientID]; p != nil && p.epoch == s.Epoch && p.held {
		p.held, p.seen = false, d.now()
	}
	return nil
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
		if p.online(now) {
			found[i].Online, found[i].Session = true, p.session
		}
	}
	return found, nil
}

// Watch implements directory.Directory.
func (d *Directory) Watch(ctx context.Context, node string, fn func(directory.Session)) error {
	notices := make(chan directory.Session, backlog)
	d.mu.Lock()
	if d.watchers[node] == nil {
		d.watchers[node] = map[chan directory.Session]bool{}
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
		case s := <-notices:
			fn(s)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// LeaseID implements directory.Directory.
func (d *Directory) LeaseID(ctx context.Context, owner string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	n := d.owners[owner]
	if n == 0 || d.nodes[n].owner != owner {
		n = 1
		for n <= directory.MaxNodes && d.nodes[n].expires.After(now) {
			n++
		}
		if n > directory.MaxNodes {
			return "", directory.ErrNoFreeID
		}
		delete(d.owners, d.nodes[n].owner)
		delete(d.records, directory.NodeID(n)) // it was the last owner's
		d.owners[owner] = n
	}
	d.nodes[n] = lease{owner: owner, expires: now.Add(directory.TTL)}
	return directory.NodeID(n), nil
}

// leasedTo reports whether the id is leased to the owner now. It needs mu.
func (d *Directory) leasedTo(owner, id string) bool {
	n := d.owners[owner]
	return n != 0 && directory.NodeID(n) == id && d.nodes[n].owner == owner && d.nodes[n].expires.After(d.now())
}

// Announce implements directory.Nodes.
func (d *Directory) Announce(ctx context.Context, owner string, n directory.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.leasedTo(owner, n.ID) {
		return directory.ErrNotLeased
	}
	n.Seen = d.now()
	d.records[n.ID] = announced{n, n.Seen.Add(directory.TTL)}
	return nil
}

// Withdraw implements directory.Nodes.
func (d *Directory) Withdraw(ctx context.Context, owner, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leasedTo(owner, id) {
		delete(d.records, id)
	}
	return nil
}

// Nodes implements directory.Nodes.
func (d *Directory) Nodes(ctx context.Context, ids ...string) ([]directory.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(ids) == 0 {
		for id := range d.records {
			ids = append(ids, id)
		}
	}
	now, found := d.now(), make([]directory.Node, 0, len(ids))
	for _, id := range ids {
		if r, ok := d.records[id]; ok && r.expires.After(now) {
			found = append(found, r.node)
		}
	}
	directory.SortNodes(found)
	return found, nil
}
