package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
)

// nodeLease is the id that this node is known by, and its record, both of which
// last as long as it keeps them.
type nodeLease struct {
	node      string
	owner     string
	directory presences
	log       *slog.Logger

	mu     sync.Mutex            // held while the record is written, so that the last one is the newest
	record func() directory.Node // guarded by mu; nil = there is none to show
	shown  directory.Node        // guarded by mu; as it was written last
}

const (
	// lookEvery is how often a node looks whether it is still as it said.
	lookEvery = 250 * time.Millisecond
	// loadEvery bounds how often it says only that its load has changed: with a
	// thousand nodes that is five hundred writes a second to Redis.
	loadEvery = 2 * time.Second
)

// leaseTries is how many ids a node tries that are other nodes' by their keys.
const leaseTries = 16

// leaseNode leases the id this node is known by, joins the cluster under it, and keeps
// it. A node that lost its id to another must not go on under it: the directory would
// mix them up. The directory may offer an id that belongs to another node by its key, or
// to one that was revoked; then this node takes the next one, as a new node.
func (p *process) leaseNode(ctx context.Context, d presences, join nodeIdentity) (l *nodeLease, member membership, err error) {
	if err := p.dir.wasRevoked(); err != nil {
		return nil, member, err
	}
	for try := 1; ; try++ {
		if l, err = p.offeredNode(ctx, d); err != nil {
			return nil, member, err
		}
		if join != nil {
			member, err = join(ctx, l.node)
		}
		if code := domain.CodeOf(err); err == nil || code != domain.CodeNodeTaken && code != domain.CodeNodeRevoked || try == leaseTries {
			break
		}
		if p.dir.hasNodeCertificate(l.node) { // it was this node that was revoked
			break
		}
		p.log.Warn("the node id belongs to another node, trying the next one", "node", l.node, "error", err)
		if err := p.dir.forgetNodeKey(); err != nil {
			return nil, member, err
		}
	}
	if err != nil {
		return nil, member, err
	}
	p.run("node lease", l.keep)
	p.run("node record", l.follow)
	return l, member, nil
}

// offeredNode leases the id that the directory offers.
func (p *process) offeredNode(ctx context.Context, d presences) (*nodeLease, error) {
	owner, err := p.dir.nodeKey()
	if err != nil {
		return nil, err
	}
	if r, ok := d.(interface{ Recall(owner, id string) }); ok {
		had, err := p.dir.nodeID()
		if err != nil {
			return nil, err
		}
		r.Recall(owner, had)
	}
	node, err := d.LeaseID(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("lease a node id: %w", err)
	}
	if err := p.dir.keepNodeID(node); err != nil {
		p.log.Warn("cannot keep the node id on disk; a start after a flush of Redis may get another", "error", err)
	}
	return &nodeLease{node: node, owner: owner, directory: d, log: p.log.With("node", node)}, nil
}

func (l *nodeLease) keep(ctx context.Context) error {
	tick := time.NewTicker(directory.TTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := l.directory.LeaseID(ctx, l.owner)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.log.Warn("cannot prolong the lease of the node id, trying on", "error", err)
		case now != l.node:
			return fmt.Errorf("node id %s was leased to another while this node could not prolong it; start again, as %s", l.node, now)
		default:
			l.announce(ctx)
		}
	}
}

// leased is the directory of a node that has an id. When another process has begun to
// be this node, it asks whose the id is: after a flush of Redis that one took an id
// that nobody seemed to have, and gives it back.
type leased struct {
	directory.Directory
	lease *nodeLease
}

// Beat implements directory.Directory.
func (l leased) Beat(ctx context.Context, node, run string) (directory.Beat, error) {
	beat, err := l.Directory.Beat(ctx, node, run)
	if !errors.Is(err, directory.ErrNodeTaken) {
		return beat, err
	}
	if now, leaseErr := l.lease.directory.LeaseID(ctx, l.lease.owner); leaseErr != nil || now != l.lease.node {
		return beat, err
	}
	l.lease.log.Warn("another process had taken this node's id, after a flush of Redis; it has been given back")
	return l.Directory.Beat(ctx, node, run)
}

// follow writes the record when what it says has changed: a state at once, a load
// now and then. Without change it is prolonged with the lease.
func (l *nodeLease) follow(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, was, ok := l.look()
		changed := now.State != was.State || now != was && time.Since(said) >= loadEvery
		if ok && changed {
			said = time.Now()
			l.announce(ctx)
		}
	}
}

// look gives the record as it would be now and as it was written.
func (l *nodeLease) look() (now, was directory.Node, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record == nil {
		return now, was, false
	}
	return l.record(), l.shown, true
}

// show lets other nodes find this one.
func (l *nodeLease) show(ctx context.Context, record func() directory.Node) {
	l.mu.Lock()
	l.record = record
	l.mu.Unlock()
	l.announce(ctx)
}

// announce writes the record, if there is one. When that fails the next time is a
// few seconds away, and the directory's silence is nothing to end for.
func (l *nodeLease) announce(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, directory.TTL/5)
	defer cancel()
	l.shown = l.record()
	if err := l.directory.Announce(ctx, l.owner, l.shown); err != nil && !errors.Is(err, context.Canceled) {
		l.log.Warn("cannot announce this node, trying on", "error", err)
	}
}

// hide takes the record back.
func (l *nodeLease) hide(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record = nil
	ctx, cancel := context.WithTimeout(ctx, directory.TTL/5)
	defer cancel()
	if err := l.directory.Withdraw(ctx, l.owner, l.node); err != nil {
		l.log.Warn("cannot take this node's record back; it will run out", "error", err)
	}
}

// nodeRecord describes this node as it is when it is asked.
func (p *process) nodeRecord(node string, f *forwarder.Forwarder) func() directory.Node {
	n := directory.Node{ID: node, Version: shortVersion(), Since: time.Now().UTC()}
	n.Agents, n.Also, _ = strings.Cut(reachable(p.cfg.AdvertiseAgents, p.sockets.agents.Addr()), ",")
	if p.sockets.bridge != nil {
		n.Bridge = reachable(p.cfg.AdvertiseBridge, p.sockets.bridge.Addr())
	}
	if ports := p.cfg.publicPorts(); ports != nil {
		n.Public, n.FirstPort, n.LastPort = p.cfg.publicHost(), ports.First, ports.Last
	}
	if p.sockets.servesHosts() {
		n.BaseDomain, n.HostsURL, n.TLSURL = p.cfg.BaseDomain, p.hostsURL(), p.tlsURL()
		n.APIHost = p.cfg.APIHost
	}
	return func() directory.Node {
		now := n
		now.ClosedPorts = closedPorts(f.ClosedPorts())
		now.Clients, now.Streams = f.Load()
		now.Checked = f.Checked()
		if now.State = directory.NodeActive; f.Draining() {
			now.State = directory.NodeDraining
		}
		return now
	}
}
