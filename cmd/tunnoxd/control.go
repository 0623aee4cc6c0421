package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/control"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/wire"
)

const controlLong = `Run the control plane: the REST API, the relay that carries the log to the
configuration feed, and the projector that keeps the read models. It needs
--postgres and --redis; any number of them work at the same time.

All of them need the same API key: the first makes DATA/api-key, to be copied to
the others, or TUNNOXD_API_KEY is set for all. It also opens the cluster's secrets,
which are kept in Postgres: the authority's key and the join token. Relay and
projector run in one control plane at a time; another takes over within seconds.

DATA/join-token lets forwarders into the cluster ("tunnoxd join-token" prints it
too). They get certificates from the State service (--state).

To change the API key, give the new one together with the one before, as
TUNNOXD_API_KEY_BEFORE, to one control plane after the other.`

// controlOnly is the control plane alone.
func controlOnly(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
	if cfg.Postgres == "" || cfg.Redis == "" {
		return usageError{errors.New("a control plane of its own needs --postgres and --redis: forwarders follow it over them")}
	}
	return newProcess(cfg, out, log).live(ctx, func(p *process) error {
		if err := p.open(binding{api: cfg.API, metrics: cfg.Metrics, state: cmp.Or(cfg.State, defaultState)}); err != nil {
			return err
		}
		b, err := p.openCluster(ctx)
		if err != nil {
			return err
		}
		key := b.key
		cp, err := p.startControlPlane(ctx, b, key)
		if err != nil {
			return err
		}
		if cp.certificates, err = p.startCertificates(ctx, b, cp, key); err != nil {
			return err
		}
		authority, _, err := p.startState(ctx, b, cp, key)
		if err != nil {
			return err
		}
		if err := p.dir.writeAddresses(p.sockets.addresses()); err != nil {
			return err
		}
		cp.joining.Store(&joining{authority.Pin(), func(ctx context.Context) []string { return p.agentsServers(ctx, b.directory) }})
		// Without Redis there is nothing to wait for that would come by itself, and
		// commands need none of it.
		if !b.away {
			if err := p.waitFor(ctx, cp.complete); err != nil {
				return err
			}
		}
		cp.open(p)
		return p.announce(announcement{key: &key, pin: authority.Pin(), joinable: true, servers: p.agentsServers(ctx, b.directory)})
	})
}

// controlPlane is what decides and remembers.
type controlPlane struct {
	store     eventstore.Store
	rows      projections.Store
	executor  *eventstore.Executor
	commands  httpapi.Executor                                   // the executor, with what is public to be had
	public    func(context.Context) func(*domain.Mapping) string // where visitors reach mappings
	projector *projections.Projector
	reader    *projections.Reader
	usage     *usage.Book
	proofs    *audit.KeyProver
	joining   atomic.Pointer[joining]  // nil: nobody can join yet
	session   *controlpostgres.Session // nil: there is no other control plane
	phase     atomic.Pointer[string]   // why it is not ready; nil = it is

	api          http.Handler         // the REST API
	logins       control.Logins       // of visitors
	certificates control.Certificates // of public hosts; nil: it orders none
}

// open says that the control plane may be sent work, until the process ends:
// balancers are to leave before anything they use does.
func (cp *controlPlane) open(p *process) {
	p.atEnd("readiness", func(context.Context) error { cp.shut("ending"); return nil })
	cp.phase.Store(nil)
}

// serveWithout lets work come before the read models are complete, because Redis is
// away: commands and reads of one resource need none.
func (cp *controlPlane) serveWithout() { cp.phase.Store(nil) }

func (cp *controlPlane) shut(why string) { cp.phase.Store(&why) }

// isOpen is the readiness check that balancers watch.
func (cp *controlPlane) isOpen(context.Context) error {
	if why := cp.phase.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// startControlPlane starts, in this order and ended in the reverse: the
// executor, whose running appends must finish before the log closes; relay and
// projector, which carry them on; the API, whose requests need all of them.
func (p *process) startControlPlane(ctx context.Context, b *backend, key apiKey) (*controlPlane, error) {
	head := func(ctx context.Context) (domain.Position, error) {
		head, err := b.store.Head(ctx)
		return head.Position, err
	}
	cp := &controlPlane{store: b.store, rows: b.rows, reader: projections.NewFollowingReader(b.rows, b.raw, head)}
	cp.reader.BelieveLog(b.store)
	cp.shut("starting")
	if b.shared != nil {
		session, err := p.beginSession(b.shared)
		if err != nil {
			return nil, err
		}
		cp.session = session
	}

	metrics := eventstore.NewMetrics(p.registry)
	cp.executor = eventstore.NewExecutor(b.store, eventstore.ExecutorOptions{Metrics: metrics})
	cp.commands = publicDesk{cp.executor, b.directory, time.Now}
	cp.public = visitorAddresses(b.directory, p.log.With("part", "commands"))
	p.run("executor", cp.executor.Run)

	log := history{b.store, b.between}
	p.alarms.add(alarmHistory, newCheck(log.check).run)
	past := memory.NewPast(b.store)
	b.store.OnErase = past.Forget
	if b.watched != nil {
		watch := eventstore.NewContinuity(b.watched, metrics, p.log.With("part", "log"), cp.executor.Forget, past.Forget)
		p.run("continuity", watch.Run)
	}

	// The feed carries records as they are kept, but for what leads connections.
	relay := eventstore.NewRelay(b.store.Routed(), b.publisher, eventstore.RelayOptions{Settle: log.settle, Metrics: metrics, Logger: p.log.With("part", "relay")})
	p.runAlone(cp.session, leaseRelay, relay.Run)

	switch n, err := b.store.FinishErasures(ctx); {
	case err != nil:
		p.log.Warn("erasures that were cut short cannot be finished now; reading of them does it too", "error", err)
	case n > 0:
		p.log.Info("finished erasures that were cut short", "accounts", n)
	}

	cp.projector = projections.NewProjector(b.store, b.rows, projections.Options{
		Head:     head,
		Progress: p.showRebuild,
		Metrics:  projections.NewMetrics(p.registry),
		Logger:   p.log.With("part", "projector"),
	})
	p.runAlone(cp.session, leaseProjector, cp.projector.Run)
	p.run("reader", cp.reader.Follow)

	var err error
	if cp.usage, err = p.startUsage(ctx); err != nil {
		return nil, err
	}

	if err := p.adoptKeys(ctx, b, key); err != nil {
		return nil, err
	}
	proofs, err := p.startAudit(ctx, b.raw)
	if err != nil {
		return nil, err
	}

	cp.proofs = audit.NewKeyProver(b.raw, proofs.sealer, proofs.key)
	p.alarms.add(alarmAudit, proofs.sealer.Check)

	signing, err := loadSigningKeys(p.dir, p.cfg.JWTKey)
	if err != nil {
		return nil, err
	}
	proxies, err := p.cfg.trustedProxies()
	if err != nil {
		return nil, err
	}
	present := newPresence(b.directory)
	p.atEnd("presence", func(context.Context) error { present.asked.Close(); return nil })
	cleaner := &janitor{executor: cp.executor, reader: cp.reader, presence: present, expiry: p.cfg.AnonymousExpiry,
		log: p.log.With("part", "janitor"), now: time.Now}
	p.run("janitor", cleaner.run)
	leavings := &releaser{executor: cp.executor, reader: cp.reader, presence: present, nodes: b.directory, ready: func(ctx context.Context) bool { return cp.isOpen(ctx) == nil }, grace: p.cfg.HeldGrace,
		log: p.log.With("part", "janitor"), now: time.Now}
	p.run("releaser", leavings.run)

	visitorKey, err := loadVisitorKey(p.dir)
	if err != nil {
		return nil, err
	}
	if err := p.startVisitorLogins(cp, visitorKey); err != nil {
		return nil, err
	}
	hooks, err := p.startWebhooks(ctx, b, cp)
	if err != nil {
		return nil, err
	}

	requests := httpapi.NewMetrics()
	p.registry.MustRegister(requests)
	handler, err := httpapi.New(httpapi.Config{
		Executor: cp.commands, History: b.store, Search: b.store, Reader: cp.reader, Past: past, Presence: present,
		Nodes:    nodes{b.directory, b.shared, p.log.With("part", "api")},
		Usage:    cp.usage,
		Webhooks: hooks, WebhookHTTP: p.cfg.WebhookHTTP,
		NewCredential: func() (string, []byte, error) {
			c, err := wire.NewCredential()
			if err != nil {
				return "", nil, err
			}
			return c.AuthCode(), c.PublicKey(), nil
		},
		SealSecret: visitorKey.Seal,
		JoinCode:   cp.joinCode, LookupTXT: p.cfg.lookupTXT,
		ParseClaim:  func(code string) (httpapi.Claim, error) { return wire.ParseClaimCode(code) },
		SigningKeys: signing, Plans: p.cfg.plans,
		Keys:    []httpapi.Key{{Name: "admin", Hash: httpapi.HashKey(key.secret)}},
		Version: httpapi.Version{Version: shortVersion(), Go: runtime.Version()},
		Checks: map[string]func(context.Context) error{
			"open":  cp.isOpen,
			"store": newCheck(b.raw.CanAppend).run,
		},
		Needs:       b.needs,
		Alarms:      p.shownAlarms(),
		Auditor:     proofs,
		Eraser:      b.store,
		CORSOrigins: p.cfg.corsOrigins(), TrustedProxies: proxies, RateLimit: p.cfg.RateLimit, RateBurst: p.cfg.RateBurst, Rates: p.startRates(b, rand.Text()),
		Metrics: requests,
		Logger:  p.log.With("part", "api"),
	})
	if err != nil {
		return nil, err
	}
	cp.api = handler
	p.serveHTTP("api", httpapi.NewServer(handler, p.log), p.sockets.api)
	return cp, nil
}

// showRebuild tells how a rebuild of the read models goes, when it takes long
// enough for somebody to wonder.
func (p *process) showRebuild(at projections.Progress) {
	if at.Elapsed < time.Second {
		return
	}
	done := "all"
	if at.Head > at.Done {
		done = fmt.Sprintf("%d%%", 100*at.Done/at.Head)
	}
	p.log.Info("building the read models from the log", "events", int64(at.Done), "of", int64(at.Head), "done", done, "per_second", int64(at.Rate()))
}
