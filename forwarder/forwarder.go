// Package forwarder is where agents connect: it proves who they are, tells them
// what to listen on, and joins the streams of source agents to target agents.
//
// Its duty is that no byte passes that the records do not allow. It knows the
// clients connected to it, their mappings, and the users and limits behind those:
// a view per client, kept up to date by the configuration feed. Every stream is
// authorised from that; what an agent says of itself is its client id, proved,
// and a mapping id. What the records no longer allow is ended at once: streams,
// listeners, sessions.
//
// Its limits: it has no database and keeps nothing on disk. It grows with the
// clients connected to it, never with those that exist. A target that is connected
// to another forwarder is reached over one bridge: the open is authorised here and
// once more there, and goes no further.
package forwarder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
)

// Lookup gives what must be known to serve agents and those who come in at public
// ports.
type Lookup interface {
	// ClientView gives what must be known of one client to serve it, at min or later. A
	// client that does not exist is a domain.CodeClientNotFound, or a view of a client
	// without an id.
	ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error)
	// IngressView gives what must be known to serve what comes in there, at min or
	// later.
	IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error)
}

// Registrar gives an identity to an agent that has none.
type Registrar interface {
	Register(ctx context.Context, r domain.Registration) (clientID int64, err error)
}

// Peers opens streams to other forwarders. The peer that is reached has proved to
// be the node.
type Peers interface {
	Open(ctx context.Context, node, address string) (transport.Stream, error)
}

// Acceptor is where sessions of agents, not yet proved, come from.
type Acceptor interface {
	Accept(ctx context.Context) (transport.Session, error)
}

// Limits bound what strangers and agents can make the forwarder hold or wait
// for. A zero field stands for its default.
type Limits struct {
	Login         time.Duration // from the session's start to Welcome; 10 s
	Logins        int           // sessions not yet welcomed, in all; 4096
	LoginsPerHost int           // the same, from one address; 256
	Registrations int           // new identities a minute from one address, as many at once; 30
	// RegistrationsAll bounds them from all addresses together; 600
	RegistrationsAll int
	Open             time.Duration // from Open to Opened, the target agent's dial included; 15 s
	StreamsOpening   int           // streams of one session waiting for Opened; 4096
	VisitorsOpening  int           // connections at public ports waiting for their service; 4096
	Ping             time.Duration // how often an agent asks whether its session is served; 5 min
	Dead             time.Duration // silence after which a session is given up; 15 s
	Report           time.Duration // how often what was used is reported, at most 5 s; 1 s
}

func (l Limits) withDefaults() Limits {
	set(&l.Login, 10*time.Second)
	set(&l.Logins, 4096)
	set(&l.LoginsPerHost, 256)
	set(&l.Registrations, 30)
	set(&l.RegistrationsAll, 600)
	set(&l.Open, 15*time.Second)
	set(&l.StreamsOpening, 4096)
	set(&l.VisitorsOpening, 4096)
	set(&l.Ping, 5*time.Minute)
	set(&l.Dead, 15*time.Second)
	set(&l.Report, time.Second)
	l.Report = min(l.Report, heartbeat)
	return l
}

func set[T comparable](field *T, to T) {
	var zero T
	if *field == zero {
		*field = to
	}
}

// Config is what a forwarder is made of.
type Config struct {
	Node      string // its id, for example "node-001"
	Lookup    Lookup
	Feed      broker.Follower
	Directory directory.Directory
	Registrar Registrar       // nil: agents without an identity are refused
	Commander Commander       // nil: what agents ask for is refused
	Nodes     directory.Nodes // where other forwarders are; nil with Peers
	Peers     Peers           // nil: a target that is not connected here is offline
	// Announce lets others know that this node has begun to drain, before its agents
	// are told to leave; nil: they find out by themselves.
	Announce func(context.Context)
	// API gives the URL of the REST API for who is at the machine of an agent that
	// connects from an address, "" for none; nil: agents are not told.
	API      func(from net.Addr) string
	Ports    *Ports             // those that visitors come in at; nil: none
	Portions directory.Portions // where limits are divided with other forwarders; nil: there are none
	Ledger   Ledger             // where usage is reported; nil: nowhere
	Logger   *slog.Logger       // nil: nothing is logged
	Metrics  *Metrics           // nil: nobody sees them
	Now      func() time.Time   // nil: time.Now
	Limits   Limits
}

// Forwarder is one node of the data plane. [New] starts nothing; Run and Serve
// block; Close ends both.
type Forwarder struct {
	node      string
	lookup    Lookup
	feed      broker.Follower
	directory directory.Directory
	registrar Registrar
	commander Commander
	log       *slog.Logger
	metrics   *Metrics
	now       func() time.Time
	limits    Limits
	api       func(net.Addr) string // nil: agents are not told

	run        string // of this node, from New to Close
	announce   func(context.Context)
	routes     *routes
	tally      *tally    // of what was used
	portions   *portions // nil: limits are this forwarder's alone
	neighbours *neighbours
	peers      Peers              // nil: there are no other forwarders
	places     *whereabouts       // with peers
	ports      *ports             // nil: no public port is here
	hosts      *hosts             // public hosts that are asked for
	probes     singleflight.Group // of peers that do not answer, by node
	logins     *doorkeeper
	takeovers  takeovers
	strangers  *rate.Limiter // failed logins in the log
	viewed     chan struct{} // a view has given the feed a place to start from
	acked      chan *session // configurations acknowledged, to be told to the directory

	ctx          context.Context // ends with Close
	cancel       context.CancelFunc
	draining     atomic.Bool
	leaving      sync.Once                 // agents are asked to leave once
	beaten       atomic.Bool               // the directory knows this run of the node
	lost         atomic.Pointer[time.Time] // when the directory was away or had lost this node last; nil = never
	refreshEvery atomic.Int64              // nanoseconds; how often each session is registered again
	parking      *parking
	tickets      atomic.Uint64 // the last one
	joined       atomic.Int64  // pairs of lanes
	inFlight     atomic.Int64  // streams being opened or joined
	visiting     atomic.Int64  // of those, visitors who wait for their service

	mu     sync.Mutex // guards closed and adding to tasks
	closed bool
	tasks  sync.WaitGroup // every goroutine but the callers of Run and Serve
}

// New builds a forwarder.
func New(cfg Config) (*Forwarder, error) {
	var faults []error
	if cfg.Node == "" {
		faults = append(faults, errors.New("no node id"))
	}
	if cfg.Lookup == nil {
		faults = append(faults, errors.New("no lookup"))
	}
	if cfg.Feed == nil {
		faults = append(faults, errors.New("no feed"))
	}
	if cfg.Directory == nil {
		faults = append(faults, errors.New("no directory"))
	}
	if (cfg.Peers == nil) != (cfg.Nodes == nil) {
		faults = append(faults, errors.New("peers and where they are belong together"))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("build forwarder: %w", errors.Join(faults...))
	}
	f := &Forwarder{node: cfg.Node, lookup: cfg.Lookup, feed: cfg.Feed, directory: cfg.Directory,
		registrar: cfg.Registrar, commander: cfg.Commander, log: cfg.Logger, metrics: cfg.Metrics, now: cfg.Now,
		limits: cfg.Limits.withDefaults(), api: cfg.API, run: token(), announce: cfg.Announce, neighbours: &neighbours{self: cfg.Node},
		viewed: make(chan struct{}, 1), acked: make(chan *session, 64)}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.metrics == nil {
		f.metrics = NewMetrics()
	}
	if f.now == nil {
		f.now = time.Now
	}
	f.routes = newRoutes(f.metrics)
	f.tally = newTally(cfg.Node, cfg.Ledger, f.limits.Report, f.now, f.metrics, f.log)
	f.routes.tally = f.tally
	if cfg.Peers != nil {
		f.peers, f.places = cfg.Peers, newWhereabouts(cfg.Directory, cfg.Nodes, f.metrics, f.now)
	}
	f.logins = newDoorkeeper(f.limits, f.now)
	f.strangers = rate.NewLimiter(strangersPerSecond, strangersAtOnce)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.portions = newPortions(f, cfg.Portions)
	f.routes.portions = f.portions
	f.parking = newParking()
	f.ports, f.hosts = newPorts(f, cfg.Ports), newHosts()
	f.metrics.observe(f)
	return f, nil
}

// Run follows the configuration feed and keeps the directory, until ctx ends or
// Close is called. An error means that the feed brought a record this version
// cannot read, and going on would be serving what may no longer be allowed; or
// that another process has this node's id.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(f.ctx, func() { cancel(nil) })
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.keepPresence(ctx); err != nil {
			cancel(err)
		}
	})
	running.Go(func() { f.watch(ctx) })
	if f.places != nil {
		running.Go(func() { f.survey(ctx) })
	}
	running.Go(func() { f.tally.run(ctx) })
	running.Go(func() { f.enforce(ctx) })
	running.Go(func() { f.lookAtTargets(ctx) })
	if f.portions != nil {
		running.Go(func() { f.portions.keep(ctx) })
	}
	if f.ports != nil {
		running.Go(func() { f.ports.keep(ctx) })
	}
	err := f.follow(ctx)
	cancel(err)
	running.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, directory.ErrNodeTaken) {
		return cause
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Serve takes sessions from where agents connect, until ctx ends, Close is
// called or there are no more. It can be called for several acceptors.
func (f *Forwarder) Serve(ctx context.Context, from Acceptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(f.ctx, cancel)
	defer stop()
	f.takeLanes(from)
	var pause wait.Backoff
	for {
		link, err := from.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if link != nil {
				link.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed), errors.Is(err, transport.ErrSessionClosed):
			return nil
		case err != nil:
			// Out of descriptors, for example: the listener outlives it.
			f.log.Warn("accepting agents", "error", err)
			pause.Wait(ctx)
			continue
		}
		pause.Reset()
		if !f.start(func() { f.serveSession(link) }) {
			link.Close()
			return nil
		}
	}
}

// Load tells how much the forwarder has to do: clients connected, and streams
// being opened or joined.
func (f *Forwarder) Load() (clients, streams int) {
	clients, _ = f.routes.counts()
	return clients, int(f.inFlight.Load())
}

// Close ends all sessions and waits for everything the forwarder started. Agents
// are told that they may come back.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.draining.Store(true)
	f.cancel()
	for _, s := range f.routes.sessions() {
		s.end(wire.Refuse(wire.ShuttingDown))
	}
	if f.ports != nil {
		f.ports.settle(nil) // Run may have ended before, or never begun
	}
	for _, fwd := range f.routes.begunOutside() {
		fwd.reset(wire.ShuttingDown)
	}
	f.tasks.Wait()
	f.tally.finish()
	f.portions.finish() // or others could not use it before this node's lease ends
	return nil
}

// start runs do in a goroutine that Close waits for. It reports false after
// Close. A panic ends what do was about, not the process: the deferred calls of
// do close its connection.
func (f *Forwarder) start(do func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.tasks.Go(func() {
		defer f.survive()
		do()
	})
	return true
}

// enter is start for work that has a goroutine already: it is over with
// f.tasks.Done.
func (f *Forwarder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.tasks.Add(1)
	}
	return !f.closed
}

// survive turns a panic in one connection into a log line.
func (f *Forwarder) survive() {
	if p := recover(); p != nil {
		f.metrics.panics.Inc()
		f.log.Error("panic in a connection, which ends it", "panic", p, "stack", string(debug.Stack()))
	}
}

// carryOut does what a change of the routes asks for. It does not wait for
// anybody.
func (f *Forwarder) carryOut(fx *effects) {
	if fx == nil {
		return
	}
	for s, refusal := range fx.ends {
		s.end(refusal)
	}
	for stream, code := range fx.resets {
		stream.reset(code)
	}
	for s, at := range fx.configures {
		s.configure(at)
	}
	for what, min := range fx.refreshes {
		f.start(func() { f.refresh(f.ctx, what, min) })
	}
	if fx.listeners && f.ports != nil {
		signal(f.ports.changed)
	}
}

// token draws an id for a session.
func token() string { return rand.Text() }
