package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

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
proved with certificates that the control plane gives and renews. Agents verify it
by a certificate of the same authority, made out to --advertise-agents and what was
bound: a join line with the authority's pin holds for every forwarder.

Without --control its TLS identity is server.crt and server.key in --data, and
--cluster-ca names the authority that vouches for what is read from Redis.`

// forwarderOnly is a forwarder alone.
func forwarderOnly(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
	if cfg.Redis == "" && cfg.RedisFile == "" {
		return usageError{errors.New("a forwarder of its own needs --redis or --redis-file: a feed in memory would reach nobody")}
	}
	if cfg.APIHost != "" {
		return usageError{errors.New("--api-host is for tunnoxd serve: a forwarder of its own has no API. In a cluster, run tunnoxd serve with --state and --api-host in place of a control plane, or put a proxy with TLS before the --api of the control planes")}
	}
	if err := cfg.checkHostsTogether(); err != nil {
		return err
	}
	return newProcess(cfg, out, log).live(ctx, func(p *process) error {
		join, err := p.joins()
		if err != nil {
			return err
		}
		on := binding{agents: cfg.Listen, ws: cfg.WS, quic: cfg.QUIC, metrics: cfg.Metrics, http: cfg.HTTP, https: cfg.HTTPS, http3: cfg.http3(), tls: cfg.TLS}
		if join != nil {
			on.bridge = cfg.Bridge
		}
		if err := p.open(on); err != nil {
			return err
		}
		believed := &believer{}
		if join == nil {
			if p.cfg.ClusterCA == "" {
				return usageError{errors.New("--cluster-ca is required without --control: by it this forwarder tells what control planes wrote to Redis (DATA/cluster-ca.pem of a control plane)")}
			}
			roots := fileRoots(p.cfg.ClusterCA)
			if _, err := roots(); err != nil {
				return err
			}
			believed.from(roots)
		}
		b, err := p.openRedis(ctx, believed.trust)
		if errors.Is(err, errAway) {
			err = p.awaitBetween(ctx, b)
		}
		if err != nil {
			return err
		}
		self, err := p.startForwarder(ctx, forwarderParts{between: b, join: join, believer: believed, lookup: projections.NewReader(b.rows)})
		if err != nil {
			return err
		}
		if err := p.dir.writeAddresses(p.sockets.addresses()); err != nil {
			return err
		}
		return p.announce(announcement{pin: self.pin})
	})
}

// forwarderParts is what a forwarder is built on. registrar nil refuses agents
// without an identity.
type forwarderParts struct {
	between
	join      nodeIdentity       // nil: no cluster
	believer  *believer          // nil: this process has the key itself
	authority *control.Authority // where it is in this process; nil: elsewhere, or none
	state     *control.Server    // beside it
	lookup    forwarder.Lookup
	registrar forwarder.Registrar
	commander func(node string) *control.Local // of this process; nil: elsewhere, or none
	ledger    forwarder.Ledger                 // nil: the control plane's, if there is one

	api          http.Handler         // the REST API; nil: elsewhere
	logins       control.Logins       // of visitors; nil: the control plane's, if there is one
	certificates control.Certificates // of public hosts; nil: the control plane's, if there is one
}

// startForwarder starts to serve agents, and tells how they know this server. It
// is started last and ended first: streams take longest to end, and until they
// have, the rest goes on working.
func (p *process) startForwarder(ctx context.Context, parts forwarderParts) (identity, error) {
	lease, member, err := p.leaseNode(ctx, parts.directory, parts.join)
	if err != nil {
		return identity{}, err
	}
	trust := member.Trust
	log := p.log.With("part", "forwarder", "node", lease.node)
	cfg := forwarder.Config{Node: lease.node, Lookup: parts.lookup, Feed: parts.follower, Directory: leased{parts.directory, lease},
		Registrar: parts.registrar, Ledger: parts.ledger, Logger: log, Ports: p.cfg.publicPorts(), API: p.apiFor, Limits: forwarder.Limits{Report: p.cfg.UsageInterval}}
	if parts.portions != nil {
		cfg.Portions = parts.portions
	}
	var client *control.Client
	watch := &outcasts{log: log, dir: p.dir}
	if parts.join != nil {
		if parts.believer != nil {
			parts.believer.from(trust.Roots)
		}
		if watch.pool, err = p.openPool(trust, watch.refuse); err != nil {
			return identity{}, err
		}
		cfg.Peers = peers{watch.pool}
		cfg.Nodes = parts.directory
	}
	if parts.join != nil && p.cfg.Control != "" {
		var metrics *control.ClientMetrics
		if client, metrics, err = p.dialControl(trust); err != nil {
			return identity{}, err
		}
		if cfg.Lookup, cfg.Feed, err = p.lookThrough(client, metrics, keptViews{parts.lookup, parts.views}, parts.follower); err != nil {
			return identity{}, err
		}
		cfg.Registrar, cfg.Commander, cfg.Ledger = client, client, reports{client}
		parts.certificates, parts.logins = client, client
		watch.follow(client.Revoked)
	}
	if parts.commander != nil {
		cfg.Commander = parts.commander(lease.node)
	}
	var self identity
	switch {
	case parts.authority != nil:
		self, err = p.clusterIdentity(ctx, trust, func(_ context.Context, names ...string) (control.Issued, error) {
			return parts.authority.IssueAgents(names...)
		})
	case client != nil:
		self, err = p.clusterIdentity(ctx, trust, p.certifiedNames(client, member))
	default:
		self, err = p.ownIdentity()
	}
	if err != nil {
		return identity{}, err
	}
	cfg.Metrics = forwarder.NewMetrics()
	cfg.Metrics.ShowClients(p.cfg.MetricsClients)
	p.registry.MustRegister(cfg.Metrics)
	visitors := &hostServer{domain: p.cfg.BaseDomain, apiHost: p.cfg.APIHost, logins: parts.logins, log: log}
	cfg.Announce = func(ctx context.Context) {
		visitors.leave()
		lease.announce(ctx)
	}
	f, err := forwarder.New(cfg)
	if err != nil {
		return identity{}, err
	}
	if parts.state != nil {
		watch.follow(parts.state.Revoked)
	}
	if parts.join != nil {
		if watch.server, err = p.serveBridge(trust, watch.refuse, f); err != nil {
			return identity{}, err
		}
		p.run("revoked nodes", watch.run)
	}
	agents, err := p.listenAgents(transport.ListenConfig{GetCertificate: self.certificate,
		Session: transport.SessionConfig{Queued: cfg.Metrics.Queued}}, log)
	if err != nil {
		return identity{}, err
	}
	lease.show(ctx, p.nodeRecord(lease.node, f))
	p.atEnd("node record", func(ctx context.Context) error { lease.hide(ctx); return nil })
	p.run("forwarder", f.Run)
	// Sessions end before the feed and the directory are let go: what they do at
	// their end, such as leaving the directory, needs both.
	p.atEnd("sessions", func(context.Context) error { return f.Close() })
	for _, l := range agents {
		p.run("agents at "+l.Addr().String(), func(ctx context.Context) error { return f.Serve(ctx, l) })
		p.atEnd("agents' listener at "+l.Addr().String(), func(context.Context) error { return l.Close() })
	}
	if p.sockets.servesHosts() {
		if err := p.serveHosts(ctx, visitors, f, parts.certificates, parts.api); err != nil {
			return identity{}, err
		}
	}
	p.atEnd("drain", func(ctx context.Context) error {
		err := f.Drain(ctx)
		visitors.end(ctx)
		if err != nil {
			// That somebody holds a stream open must not make the end a failure.
			log.Warn("ending with streams open", "reason", err)
		}
		return nil
	})
	return self, nil
}
