package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/transport"
)

const forwarderLong = `Run a forwarder: agents connect to it, and it joins their streams. It needs
--redis, where it reads what it must know and follows the configuration feed, and
no database. Any number of them work at the same time, each with a node id that
it leases. Agents without an identity are refused: only "serve" registers them.

--data holds its TLS identity (server.crt, server.key). Give all forwarders of a
cluster the same files, so that one join line fits all.`

// forwarderOnly is a forwarder alone.
func forwarderOnly(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
	if cfg.Redis == "" {
		return usageError{errors.New("a forwarder of its own needs --redis: a feed in memory would reach nobody")}
	}
	return newProcess(cfg, out, log).live(ctx, func(p *process) error {
		if err := p.open("", cfg.Listen); err != nil {
			return err
		}
		identity, err := p.loadIdentity()
		if err != nil {
			return err
		}
		b, err := p.openRedis(ctx)
		if err != nil {
			return err
		}
		err = p.startForwarder(ctx, forwarderParts{identity: identity, follower: b.follower, directory: b.directory,
			lookup: projections.NewReader(b.rows)})
		if err != nil {
			return err
		}
		if err := p.dir.writeAddresses(p.sockets.addresses()); err != nil {
			return err
		}
		return p.announce(nil, identity)
	})
}

// forwarderParts is what a forwarder is built on. registrar nil refuses agents
// without an identity.
type forwarderParts struct {
	identity  identity
	follower  broker.Follower
	directory directory.Directory
	lookup    forwarder.Lookup
	registrar forwarder.Registrar
}

// startForwarder starts to serve agents. It is started last and ended first:
// streams take longest to end, and until they have, the rest goes on working.
func (p *process) startForwarder(ctx context.Context, parts forwarderParts) error {
	node, err := p.leaseNode(ctx, parts.directory)
	if err != nil {
		return err
	}
	log := p.log.With("part", "forwarder", "node", node)
	metrics := forwarder.NewMetrics()
	p.registry.MustRegister(metrics)
	f, err := forwarder.New(forwarder.Config{Node: node, Lookup: parts.lookup, Feed: parts.follower, Directory: parts.directory,
		Registrar: parts.registrar, Logger: log, Metrics: metrics})
	if err != nil {
		return err
	}
	agents, err := transport.ListenTLS(p.sockets.agents, transport.ListenConfig{Certificate: parts.identity.certificate}, log)
	if err != nil {
		return err
	}
	p.run("forwarder", f.Run)
	// Sessions end before the feed and the directory are let go: what they do at
	// their end, such as leaving the directory, needs both.
	p.atEnd("sessions", func(context.Context) error { return f.Close() })
	p.run("agents", func(ctx context.Context) error { return f.Serve(ctx, agents) })
	p.atEnd("agents' listener", func(context.Context) error { return agents.Close() })
	p.atEnd("drain", func(ctx context.Context) error {
		if err := f.Drain(ctx); err != nil {
			// That somebody holds a stream open must not make the end a failure.
			log.Warn("ending with streams open", "reason", err)
		}
		return nil
	})
	return nil
}

// leaseNode leases the id this node is known by, and keeps it. A node that lost
// its id to another must not go on under it: the directory would mix them up.
func (p *process) leaseNode(ctx context.Context, d directory.Directory) (string, error) {
	owner, err := p.dir.nodeKey()
	if err != nil {
		return "", err
	}
	node, err := d.LeaseID(ctx, owner)
	if err != nil {
		return "", fmt.Errorf("lease a node id: %w", err)
	}
	p.run("node lease", func(ctx context.Context) error {
		tick := time.NewTicker(directory.TTL / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			now, err := d.LeaseID(ctx, owner)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				p.log.Warn("cannot prolong the lease of the node id, trying on", "node", node, "error", err)
			case now != node:
				return fmt.Errorf("node id %s was leased to another while this node could not prolong it; start again, as %s", node, now)
			}
		}
	})
	return node, nil
}
