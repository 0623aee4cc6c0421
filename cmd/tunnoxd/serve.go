package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const serveLong = `Run control plane and forwarder in one process.

Without --postgres and --redis everything is in --data: the log in SQLite, read
models and feed in memory. With both, the same process works over real services
and shares them with others. The first start makes an API key and a TLS identity
in --data and prints how to go on. TUNNOXD_API_KEY (32 characters or more)
replaces the key.

Without settings for visitors it also serves public hosts and ports to its own
machine, so that "tunnox http 3000" gives an URL at once; --http and --public-ports
open them to others, and are nothing when empty.

With --state, over Postgres and Redis, it is also the control plane of a cluster:
DATA/join-token lets "tunnoxd forwarder" join, and a target agent may be connected
to any of them. Agents then verify all of them by the cluster's authority.

Read models in memory are built from the log at every start; /ready is 503 until
that is done. --postgres on an empty database makes the schema; a database with
an older one is for "tunnoxd migrate".`

// process is what every role has: where it runs, what it says.
type process struct {
	*life
	cfg      *config
	out      io.Writer
	log      *slog.Logger
	dir      *dataDir
	sockets  *listeners
	registry *prometheus.Registry
	alarms   alarms
	up       atomic.Bool // it has announced itself
}

// ready tells whether the process is up and not ending.
func (p *process) ready() bool { return p.up.Load() && !p.ending.Load() }

// serve is control plane and forwarder in one.
func serve(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
	if (cfg.Postgres == "") != (cfg.Redis == "") {
		return usageError{errors.New("--postgres and --redis belong together: the log in one, read models, feed and presence in the other; without both everything is in --data")}
	}
	cfg.tryOut()
	if err := cfg.checkHostsTogether(); err != nil {
		return err
	}
	on := binding{api: cfg.API, agents: cfg.Listen, ws: cfg.WS, quic: cfg.QUIC, metrics: cfg.Metrics, http: cfg.HTTP, https: cfg.HTTPS, http3: cfg.http3(), tls: cfg.TLS}
	if cfg.State != "" {
		if cfg.Redis == "" {
			return usageError{errors.New("--state lets forwarders join, which needs --postgres and --redis")}
		}
		on.state, on.bridge = cfg.State, cfg.Bridge
	}
	if cfg.tryoutHosts {
		on.http, on.tls, on.tryout = "", "", true
	}
	return newProcess(cfg, out, log).live(ctx, func(p *process) error {
		if err := p.open(on); err != nil {
			return err
		}
		if on.state == "" {
			if _, err := p.ownIdentity(); err != nil { // told before anything is started
				return err
			}
		}
		b, err := p.openBackend(ctx)
		if err != nil {
			return err
		}
		key := b.key
		if b.shared == nil {
			if key, err = loadAPIKey(p.dir, p.cfg.apiKey); err != nil {
				return err
			}
		}
		cp, err := p.startControlPlane(ctx, b, key)
		if err != nil {
			return err
		}
		if cp.certificates, err = p.startCertificates(ctx, b, cp, key); err != nil {
			return err
		}
		parts := forwarderParts{between: b.between, lookup: cp.reader, ledger: cp.usage, commander: cp.localCommander, certificates: cp.certificates, api: cp.api, logins: cp.logins}
		parts.registrar = &registrar{executor: cp.executor, reader: cp.reader, refuses: p.cfg.Anonymous == "off", limits: limitsOf(p.cfg.plans, anonymousPlan)}
		if on.state != "" {
			if parts.authority, parts.state, err = p.startState(ctx, b, cp, key); err != nil {
				return err
			}
			parts.join = p.ownAuthority(parts.state)
		}
		// From here scripts find the API, and /ready says how far we are.
		if err := p.dir.writeAddresses(p.sockets.addresses()); err != nil {
			return err
		}
		if b.away {
			cp.serveWithout()
		}
		// Agents are served only from read models that are complete: to an agent
		// whose client is not there yet the answer would be that it never was.
		if err := p.waitFor(ctx, cp.complete); err != nil {
			return err
		}
		self, err := p.startForwarder(ctx, parts)
		if err != nil {
			return err
		}
		cp.joining.Store(&joining{self.pin, func(ctx context.Context) []string { return p.ownServers(ctx, b, on.state != "") }})
		join, err := p.firstInvite(ctx, cp)
		if err != nil {
			return err
		}
		cp.open(p)
		return p.announce(announcement{key: &key, pin: self.pin, joinable: on.state != "", join: join})
	})
}

func (p *process) openBackend(ctx context.Context) (*backend, error) {
	if p.cfg.Postgres == "" {
		return p.openEmbedded(ctx)
	}
	return p.openCluster(ctx)
}

func newProcess(cfg *config, out io.Writer, log *slog.Logger) *process {
	return &process{life: newLife(log), cfg: cfg, out: out, log: log, registry: newRegistry()}
}

// live starts the parts and runs until ctx ends or a part fails.
func (p *process) live(ctx context.Context, start func(*process) error) error {
	if err := start(p); err != nil {
		ended := p.end(p.cfg.Drain)
		if ctx.Err() != nil {
			return ended // interrupted while starting, which is no failure
		}
		return errors.Join(err, ended)
	}
	return p.wait(ctx, p.cfg.Drain)
}

// waitFor waits for a part to be ready, or for any part to fail meanwhile.
func (p *process) waitFor(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- ready(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-p.failed:
		cancel()
		<-done
		return err
	}
}

// open takes the data directory and all sockets, so that what is in the way is
// told before anything starts. Metrics are served first and ended last: a drain
// can be watched.
func (p *process) open(on binding) (err error) {
	if p.dir, err = openDataDir(p.cfg.Data); err != nil {
		return err
	}
	p.atEnd("data directory", func(context.Context) error { return p.dir.close() })
	if err := p.dir.removeAddresses(); err != nil {
		return err
	}
	if p.sockets, err = openListeners(on); err != nil {
		return err
	}
	if p.cfg.PublicPorts != "" && on.agents != "" {
		p.sockets.public = p.cfg.publicHost()
	}
	if p.sockets.servesHosts() && p.sockets.public == "" {
		p.sockets.public = p.cfg.publicHost()
	}
	p.atEnd("listeners", func(context.Context) error { return p.sockets.close() })
	if !loopback(p.sockets.metrics.Addr().String()) {
		p.log.Warn("metrics are served beyond this machine, without a key", "address", p.sockets.metrics.Addr().String())
	}
	if on.api != "" && !loopback(p.sockets.api.Addr().String()) {
		p.log.Warn("the API is served beyond this machine, without TLS: put a proxy with TLS before it", "address", p.sockets.api.Addr().String())
	}
	p.serveHTTP("metrics", p.metricsServer(), p.sockets.metrics)
	p.atEnd("addresses", func(context.Context) error { return p.dir.removeAddresses() })
	return nil
}
