package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/transport"
)

const forwarderLong = `Run a forwarder: agents connect to it, and it joins their streams. It needs
--redis, where it reads what it must know and follows the configuration feed, and
no database. Any number of them work at the same time, each with a node id that
it leases. Agents without an identity are refused without --control, because
nobody here registers them.

With --control and --join-token-file it joins a cluster: a target agent may then be
connected to another forwarder, which is reached over a bridge (--bridge), mutually
proved with certificates that the control plane gives and renews.

--data holds its TLS identity (server.crt, server.key). Give all forwarders of a
cluster the same files, so that one join line fits all.`

// forwarderOnly is a forwarder alone.
func forwarderOnly(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
	if cfg.Redis == "" {
		return usageError{errors.New("a forwarder of its own needs --redis: a feed in memory would reach nobody")}
	}
	return newProcess(cfg, out, log).live(ctx, func(p *process) error {
		join, err := p.joined()
		if err != nil {
			return err
		}
		on := binding{agents: cfg.Listen, metrics: cfg.Metrics}
		if join != nil {
			on.bridge = cfg.Bridge
		}
		if err := p.open(on); err != nil {
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
		err = p.startForwarder(ctx, forwarderParts{identity: identity, join: join, follower: b.follower, directory: b.directory,
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
	join      nodeIdentity // nil: no cluster
	follower  broker.Follower
	directory presences
	lookup    forwarder.Lookup
	registrar forwarder.Registrar
	ledger    forwarder.Ledger // nil: the control plane's, if there is one
}

// startForwarder starts to serve agents. It is started last and ended first:
// streams take longest to end, and until they have, the rest goes on working.
func (p *process) startForwarder(ctx context.Context, parts forwarderParts) error {
	lease, err := p.leaseNode(ctx, parts.directory)
	if err != nil {
		return err
	}
	log := p.log.With("part", "forwarder", "node", lease.node)
	cfg := forwarder.Config{Node: lease.node, Lookup: parts.lookup, Feed: parts.follower, Directory: parts.directory,
		Registrar: parts.registrar, Ledger: parts.ledger, Logger: log, Limits: forwarder.Limits{Report: p.cfg.UsageInterval}}
	var trust control.Trust
	if parts.join != nil {
		if trust, err = parts.join(ctx, lease.node); err != nil {
			return err
		}
		if cfg.Peers, err = p.openPool(trust); err != nil {
			return err
		}
		cfg.Nodes = parts.directory
		if p.cfg.Control != "" {
			client, lookup, err := p.askControl(trust, parts.lookup)
			if err != nil {
				return err
			}
			cfg.Lookup, cfg.Registrar, cfg.Ledger = lookup, client, reports{client}
		}
	}
	cfg.Metrics = forwarder.NewMetrics()
	cfg.Metrics.ShowClients(p.cfg.MetricsClients)
	p.registry.MustRegister(cfg.Metrics)
	f, err := forwarder.New(cfg)
	if err != nil {
		return err
	}
	if parts.join != nil {
		if err := p.serveBridge(trust, f); err != nil {
			return err
		}
	}
	agents, err := transport.ListenTLS(p.sockets.agents, transport.ListenConfig{Certificate: parts.identity.certificate}, log)
	if err != nil {
		return err
	}
	lease.show(ctx, p.nodeRecord(lease.node, f))
	p.atEnd("node record", func(ctx context.Context) error { lease.hide(ctx); return nil })
	p.run("forwarder", f.Run)
	// Sessions end before the feed and the directory are let go: what they do at
	// their end, such as leaving the directory, needs both.
	p.atEnd("sessions", func(context.Context) error { return f.Close() })
	p.run("agents", func(ctx context.Context) error { return f.Serve(ctx, agents) })
	p.atEnd("agents' listener", func(context.Context) error { return agents.Close() })
	p.atEnd("drain", func(ctx context.Context) error {
		f.StopTaking()
		lease.announce(ctx)
		if err := f.Drain(ctx); err != nil {
			// That somebody holds a stream open must not make the end a failure.
			log.Warn("ending with streams open", "reason", err)
		}
		return nil
	})
	return nil
}
