package memory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// lease is the lease of a node id.
type lease struct {
	owner   string
	expires time.Time
}

// beating is the lease that keeps a node's sessions live.
type beating struct {
	run        string
	beaten     time.Time
	past       string // the run before
	pastBeaten time.Time
	waiting    []directory.Notice
}

// announced is a node's record.
type announced struct {
	node    directory.Node
	expires time.Time
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
		if n = d.freeID(now.Add(-directory.IDKept)); n == 0 {
			n = d.freeID(now)
		}
		if n == 0 {
			return "", directory.ErrNoFreeID
		}
		delete(d.owners, d.nodes[n].owner)
		delete(d.records, directory.NodeID(n)) // the record belongs to the last owner
		d.owners[owner] = n
	}
	d.nodes[n] = lease{owner: owner, expires: now.Add(directory.TTL)}
	return directory.NodeID(n), nil
}

// forever is the end of the lease of an id that nobody gets.
var forever = time.Unix(1<<50, 0)

// Expel implements directory.Directory.
func (d *Directory) Expel(ctx context.Context, node string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := 1; n <= directory.MaxNodes; n++ {
		if directory.NodeID(n) == node {
			delete(d.owners, d.nodes[n].owner)
			d.nodes[n] = lease{expires: forever}
		}
	}
	delete(d.records, node)
	if l := d.leases[node]; l != nil {
		*l = beating{past: l.run}
	}
	return nil
}

// freeID returns the lowest id whose lease ended by then, and 0 if there is none. The caller holds mu.
func (d *Directory) freeID(by time.Time) int {
	for n := 1; n <= directory.MaxNodes; n++ {
		if !d.nodes[n].expires.After(by) {
			return n
		}
	}
	return 0
}

// leasedTo reports whether the id is leased to the owner now. The caller holds mu.
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

// Survey implements directory.Nodes.
func (d *Directory) Survey(ctx context.Context, mark string) (nodes []directory.Node, now string, err error) {
	if nodes, err = d.Nodes(ctx); err != nil {
		return nil, "", err
	}
	sum := sha256.New()
	for _, n := range nodes {
		fmt.Fprintf(sum, "%q %q %q %q %q %q\n", n.ID, n.Bridge, n.Agents, n.Also, n.Version, n.State)
	}
	if now = hex.EncodeToString(sum.Sum(nil)); now == mark {
		return nil, mark, nil
	}
	return nodes, now, nil
}

// RequestDrain implements directory.Directory.
func (d *Directory) RequestDrain(ctx context.Context, node string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.leases[node]
	if l == nil || !l.beaten.Add(directory.TTL).After(d.now()) {
		return directory.ErrNoNode
	}
	d.send(node, l.run, directory.Notice{Kind: directory.Drain})
	return nil
}

// Beat implements directory.Directory.
func (d *Directory) Beat(ctx context.Context, node, run string) (b directory.Beat, err error) {
	if err := ctx.Err(); err != nil {
		return b, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now, l := d.now(), d.leases[node]
	switch {
	case l == nil:
		l = &beating{run: run}
		d.leases[node] = l
	case l.past == run:
		return b, directory.ErrNodeTaken
	case l.run != run:
		*l = beating{run: run, past: l.run, pastBeaten: l.beaten}
	default:
		b.Known = l.beaten.Add(directory.TTL).After(now)
	}
	b.Notices, l.waiting, l.beaten = l.waiting, nil, now
	return b, nil
}
