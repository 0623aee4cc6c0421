package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
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
}

// leaseNode leases the id this node is known by, and keeps it. A node that lost
// its id to another must not go on under it: the directory would mix them up.
func (p *process) leaseNode(ctx context.Context, d presences) (*nodeLease, error) {
	owner, err := p.dir.nodeKey()
	if err != nil {
		return nil, err
	}
	node, err := d.LeaseID(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("lease a node id: %w", err)
	}
	l := &nodeLease{node: node, owner: owner, directory: d, log: p.log.With("node", node)}
	p.run("node lease", l.keep)
	return l, nil
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
	if err := l.directory.Announce(ctx, l.owner, l.record()); err != nil && !errors.Is(err, context.Canceled) {
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
	n := directory.Node{ID: node, Version: shortVersion(), Since: time.Now().UTC(),
		Agents: reachable(p.cfg.AdvertiseAgents, p.sockets.agents.Addr())}
	if p.sockets.bridge != nil {
		n.Bridge = reachable(p.cfg.AdvertiseBridge, p.sockets.bridge.Addr())
	}
	return func() directory.Node {
		now := n
		now.Clients, now.Streams = f.Load()
		if now.State = directory.NodeActive; f.Draining() {
			now.State = directory.NodeDraining
		}
		return now
	}
}
