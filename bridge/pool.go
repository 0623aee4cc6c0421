package bridge

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
)

// Errors of a pool. Test for them with errors.Is.
var (
	// ErrFull: all allowed connections to a peer carry all the streams they may carry,
	// and no place became free in time. The caller's context error is in the chain.
	ErrFull = errors.New("bridge: all connections to the peer are full")
	// ErrUnreachable: the peer could not be dialled, or is not the expected node.
	ErrUnreachable = errors.New("bridge: the peer is unreachable")
	// ErrClosed: the pool was closed.
	ErrClosed = errors.New("bridge: the pool is closed")
)

// Peer is a forwarder to which streams can be opened.
type Peer struct {
	Node    string // its id; its certificate must name this id
	Address string // host and port of its bridge
}

// PoolConfig configures a Pool. Trust is required; the zero value of each other field
// is its default.
type PoolConfig struct {
	Trust Trust
	// The pool keeps MinConnections to each peer that was used, even when they are
	// idle, and makes at most MaxConnections. Defaults 1 and 20.
	MinConnections, MaxConnections int
	// StreamsPerConnection is how many streams one connection carries. A new stream
	// goes to the fullest connection with a free place, so that others become idle.
	// Default 100.
	StreamsPerConnection int
	// IdleClose is how long a connection beyond MinConnections stays open without
	// streams. It is also how long the pool redials an unreachable peer to which nobody
	// opens a stream. Default 5 min.
	IdleClose time.Duration
	// DialTimeout bounds a dial with its handshake, and the wait for the answer to a
	// health check. Default 5 s.
	DialTimeout time.Duration
	// HealthEvery is the time between health checks of a connection. Default 30 s.
	HealthEvery time.Duration
	// Refuse is asked before a connection is made; an error is that of Open. nil: every
	// node of the cluster is connected to. Expel ends the connections that there are.
	Refuse func(node string) error
	// Dial opens TCP connections; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets events of connections. Nothing is logged for a stream.
	Log *slog.Logger

	options []grpc.DialOption // of tests that watch gRPC
}

func (c PoolConfig) withDefaults() PoolConfig {
	c.MinConnections = cmp.Or(c.MinConnections, 1)
	c.MaxConnections = max(cmp.Or(c.MaxConnections, 20), c.MinConnections)
	c.StreamsPerConnection = cmp.Or(c.StreamsPerConnection, 100)
	c.IdleClose = cmp.Or(c.IdleClose, 5*time.Minute)
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.HealthEvery = cmp.Or(c.HealthEvery, 30*time.Second)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Pool opens streams to peers, over connections that it makes when they are needed.
type Pool struct {
	config  PoolConfig
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines, and places in use

	mu     sync.Mutex
	closed bool
	peers  map[string]*peer
}

// peer holds the connections to one node. Its fields are guarded by Pool.mu.
type peer struct {
	Peer
	count     traffic
	ready     []*connection
	retired   map[*connection]struct{} // their last streams are still open
	dialling  int
	waiting   *list.List // of *waiter, the longest wait first
	failed    uint64     // number of failed dials
	forgotten bool       // dropped as soon as it has no connections and no waiters
	lastUse   time.Time
	redial    *time.Timer  // restores MinConnections
	pauses    wait.Backoff // before redials
}

// waiter waits for a place on a connection.
type waiter struct {
	place chan place // filled once
}

type place struct {
	on  *connection
	err error
}

// NewPool makes a pool. It connects to nobody before the first Open.
func NewPool(config PoolConfig) (*Pool, error) {
	if err := config.Trust.check(); err != nil {
		return nil, err
	}
	if config.MinConnections < 0 || config.MaxConnections < 0 || config.StreamsPerConnection < 0 {
		return nil, errors.New("bridge: a limit of the pool is negative")
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{config: config.withDefaults(), ctx: ctx, cancel: cancel, peers: make(map[string]*peer)}, nil
}

// Open begins a stream to a peer. The peer learns of the stream at once. Open waits
// only for a place on a connection, as long as ctx allows; ctx does not limit the
// returned stream. Any error but ErrClosed and the error of ctx means that the peer did
// not see the stream, so the caller can open it elsewhere.
func (p *Pool) Open(ctx context.Context, to Peer) (transport.Stream, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		on, c, err := p.acquire(ctx, to)
		if err != nil {
			return nil, err
		}
		s, err := c.open(ctx, &on.count, func() { p.release(on, c) })
		if err == nil {
			return s, nil
		}
		// The connection was lost between pick and open.
		p.retire(on, c, "refused a stream")
		p.release(on, c)
		if ctx.Err() != nil || attempt == attempts {
			return nil, fmt.Errorf("open stream to %s: %w", to.Node, err)
		}
	}
}

// acquire reserves a place on a connection to the peer.
func (p *Pool) acquire(ctx context.Context, to Peer) (*peer, *connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, ErrClosed
	}
	on := p.use(to)
	if on.waiting.Len() == 0 {
		if c := p.pick(on); c != nil {
			p.mu.Unlock()
			return on, c, nil
		}
	}
	w := &waiter{place: make(chan place, 1)}
	e := on.waiting.PushBack(w)
	p.dialMore(on)
	p.mu.Unlock()
	select {
	case got := <-w.place:
		return on, got.on, got.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case got := <-w.place: // at the same moment
		if got.err != nil {
			return nil, nil, got.err
		}
		p.releaseLocked(on, got.on)
	default:
		on.waiting.Remove(e)
	}
	defer p.tidy(on)
	if on.dialling == 0 {
		return nil, nil, fmt.Errorf("%w: %s has %d of %d connections: %w", ErrFull, on.Node, len(on.ready), p.config.MaxConnections, ctx.Err())
	}
	return nil, nil, fmt.Errorf("connect to %s: %w", on.Node, ctx.Err())
}

// use finds the peer, or adds it. The caller holds the lock.
func (p *Pool) use(to Peer) *peer {
	on := p.peers[to.Node]
	if on == nil {
		on = &peer{Peer: to, retired: make(map[*connection]struct{}), waiting: list.New()}
		p.peers[to.Node] = on
	}
	if on.Address != to.Address { // the peer was restarted at another address
		on.Address = to.Address
		for _, c := range slices.Clone(on.ready) {
			p.retireLocked(on, c, "the peer has another address")
		}
	}
	on.forgotten = false
	on.lastUse = time.Now()
	return on
}

// pick reserves a place on the fullest connection that has a free one, so that few
// connections are needed. The caller holds the lock.
func (p *Pool) pick(on *peer) *connection {
	var best *connection
	for _, c := range on.ready {
		if c.inUse < p.config.StreamsPerConnection && (best == nil || c.inUse > best.inUse) {
			best = c
		}
	}
	if best != nil {
		best.inUse++
		p.running.Add(1) // until releaseLocked
		if best.idle != nil {
			best.idle.Stop()
			best.idle = nil
		}
	}
	return best
}

// release frees a place, or hands it to a waiter.
func (p *Pool) release(on *peer, c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(on, c)
	p.tidy(on)
}

// releaseLocked is release for a caller that holds the lock.
func (p *Pool) releaseLocked(on *peer, c *connection) {
	defer p.running.Done()
	c.inUse--
	on.lastUse = time.Now()
	switch {
	case c.inUse > 0:
	case c.retired:
		p.end(on, c)
	default:
		p.closeWhenIdle(on, c)
	}
	p.fillWaiters(on)
}

// closeWhenIdle closes a connection if it stays idle. The caller holds the lock.
func (p *Pool) closeWhenIdle(on *peer, c *connection) {
	if p.closed || c.idle != nil {
		return
	}
	c.idle = time.AfterFunc(p.config.IdleClose, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c.inUse == 0 && !c.retired && len(on.ready) > p.config.MinConnections {
			p.retireLocked(on, c, "idle")
			p.tidy(on)
		}
	})
}

// fillWaiters hands free places to waiters. The caller holds the lock.
func (p *Pool) fillWaiters(on *peer) {
	for e := on.waiting.Front(); e != nil; e = on.waiting.Front() {
		c := p.pick(on)
		if c == nil {
			return
		}
		on.waiting.Remove(e).(*waiter).place <- place{on: c}
	}
}

// dialMore dials as many connections as the waiters will fill. The caller holds the
// lock.
func (p *Pool) dialMore(on *peer) {
	for on.waiting.Len() > on.dialling*p.config.StreamsPerConnection && len(on.ready)+on.dialling < p.config.MaxConnections {
		p.dial(on)
	}
}

// dial begins a dial. The caller holds the lock.
func (p *Pool) dial(on *peer) {
	on.dialling++
	address := on.Address
	p.running.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, p.config.DialTimeout)
		c, err := dial(ctx, p.config, on.Node, address)
		cancel()
		p.dialled(on, c, address, err)
	})
}

// dialled handles the result of a dial.
func (p *Pool) dialled(on *peer, c *connection, address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	on.dialling--
	switch {
	case err != nil:
		on.failed++
		p.config.Log.Warn("bridge connection failed", "peer", on.Node, "address", address, "error", err)
		err = fmt.Errorf("%w: %s at %s: %w", ErrUnreachable, on.Node, address, err)
		// The waiters that are not covered by another dial fail with this one.
		for n := on.waiting.Len() - on.dialling*p.config.StreamsPerConnection; n > 0; n-- {
			on.waiting.Remove(on.waiting.Front()).(*waiter).place <- place{err: err}
		}
	case p.closed:
		p.running.Go(func() { _ = c.cc.Close() })
	default:
		p.add(on, c)
		if address != on.Address {
			p.retireLocked(on, c, "the peer has another address")
			p.dialMore(on)
		}
	}
	p.restore(on)
	p.tidy(on)
}

// add puts a new connection to use. The caller holds the lock.
func (p *Pool) add(on *peer, c *connection) {
	p.config.Log.Debug("bridge connected", "peer", on.Node, "address", on.Address)
	on.pauses.Reset()
	on.ready = append(on.ready, c)
	if d := p.untilExpiry(c); d > 0 {
		c.expiry = time.AfterFunc(d, func() { p.retire(on, c, "a certificate expires") })
	}
	ctx, cancel := context.WithCancel(p.ctx)
	c.stop = cancel
	p.running.Go(func() { p.watch(ctx, on, c) })
	p.running.Go(func() { p.check(ctx, on, c) })
	p.fillWaiters(on)
	if c.inUse == 0 {
		p.closeWhenIdle(on, c)
	}
}

// untilExpiry gives how long a connection may be used. Its ends proved their identities
// with certificates. Shortly before one of these expires, a new connection is made with
// the next certificates.
func (p *Pool) untilExpiry(c *connection) time.Duration {
	ends := c.link.peer.Expires
	if own, err := p.config.Trust.Certificate(); err == nil && own.Leaf != nil && own.Leaf.NotAfter.Before(ends) {
		ends = own.Leaf.NotAfter
	}
	left := time.Until(ends)
	return left - min(time.Minute, left/10)
}

// watch retires a connection that gRPC does not use any more: the peer is gone, or
// drains (GOAWAY). If it drains, the present streams may continue to their end.
func (p *Pool) watch(ctx context.Context, on *peer, c *connection) {
	if c.cc.WaitForStateChange(ctx, connectivity.Ready) {
		p.retire(on, c, "lost or drained")
	}
}

// check asks the peer for the connection's health.
func (p *Pool) check(ctx context.Context, on *peer, c *connection) {
	ticker := time.NewTicker(p.config.HealthEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		serving, err := c.health(ctx, p.config.DialTimeout)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.retire(on, c, "unhealthy: "+err.Error())
			p.mu.Lock()
			p.end(on, c)
			p.tidy(on)
			p.mu.Unlock()
			return
		case !serving:
			p.retire(on, c, "draining")
			return
		}
	}
}

func (p *Pool) retire(on *peer, c *connection, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retireLocked(on, c, why)
	p.restore(on)
	p.tidy(on)
}

// retireLocked lets a connection accept no new streams, and closes it when it has none.
// The caller holds the lock.
func (p *Pool) retireLocked(on *peer, c *connection, why string) {
	if c.retired {
		return
	}
	c.retired = true
	p.config.Log.Debug("bridge connection retired", "peer", on.Node, "streams", c.inUse, "reason", why)
	on.ready = slices.DeleteFunc(on.ready, func(other *connection) bool { return other == c })
	on.retired[c] = struct{}{}
	for _, t := range []*time.Timer{c.idle, c.expiry} {
		if t != nil {
			t.Stop()
		}
	}
	if c.inUse == 0 {
		p.end(on, c)
	}
	p.dialMore(on)
}

// end closes a retired connection with the streams that it still has. Closing can take
// seconds when the peer does not read. The caller holds the lock.
func (p *Pool) end(on *peer, c *connection) {
	if _, ok := on.retired[c]; !ok {
		return
	}
	delete(on.retired, c)
	c.stop()
	if c.inUse > 0 {
		c.link.cut() // otherwise the streams learn of it only after gRPC's goodbye
	}
	p.running.Go(func() { _ = c.cc.Close() })
}

// firstRedial is about the pause before the first redial of a peer.
const firstRedial = 100 * time.Millisecond

// restore brings the connections to a peer back to the minimum. It tries less and less
// often when the peer is unreachable, and gives up in the end. The caller holds the
// lock.
func (p *Pool) restore(on *peer) {
	if p.closed || on.forgotten || on.redial != nil || len(on.ready)+on.dialling >= p.config.MinConnections {
		return
	}
	if len(on.ready) == 0 && time.Since(on.lastUse) > p.config.IdleClose {
		on.forgotten = true
		return
	}
	on.pauses.First, on.pauses.Most = firstRedial, p.config.HealthEvery
	on.redial = time.AfterFunc(on.pauses.Next(), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		on.redial = nil
		if !p.closed && !on.forgotten && len(on.ready)+on.dialling < p.config.MinConnections {
			p.dial(on)
		}
		p.tidy(on)
	})
}

// tidy drops a forgotten peer that has no connections and no waiters. The caller holds
// the lock.
func (p *Pool) tidy(on *peer) {
	if on.forgotten && len(on.ready)+len(on.retired)+on.dialling+on.waiting.Len() == 0 && p.peers[on.Node] == on {
		delete(p.peers, on.Node)
	}
}

// Forget drops a peer that does not exist any more. Its connections accept no new
// streams and end with those they have. A later Open adds the peer again.
func (p *Pool) Forget(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	on := p.peers[node]
	if on == nil {
		return
	}
	on.forgotten = true
	if on.redial != nil {
		on.redial.Stop()
		on.redial = nil
	}
	for _, c := range slices.Clone(on.ready) {
		p.retireLocked(on, c, "forgotten")
	}
	p.tidy(on)
}

// Expel ends the connections to a node that is no longer trusted, with their streams.
func (p *Pool) Expel(node string) {
	p.Forget(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	if on := p.peers[node]; on != nil {
		for c := range on.retired {
			p.end(on, c)
		}
		p.tidy(on)
	}
}

// PeerStats are a pool's numbers for one peer.
type PeerStats struct {
	Node        string
	Connections int     // that accept new streams
	Idle        int     // those of them without a stream
	Retired     int     // that accept no new streams
	Dialling    int     // being dialled
	Active      int     // streams
	Waiting     int     // opens that wait for a place
	Utilization float64 // fraction of the places on Connections that are in use
	DialsFailed uint64
	Sent        uint64 // bytes
	Received    uint64 // bytes
}

// Stats gives the numbers for every peer of the pool, by node.
func (p *Pool) Stats() []PeerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]PeerStats, 0, len(p.peers))
	for _, on := range p.peers {
		s := PeerStats{
			Node: on.Node, Connections: len(on.ready), Retired: len(on.retired), Dialling: on.dialling, Waiting: on.waiting.Len(),
			DialsFailed: on.failed, Sent: on.count.sent.Load(), Received: on.count.received.Load(),
		}
		for _, c := range on.ready {
			s.Active += c.inUse
			if c.inUse == 0 {
				s.Idle++
			}
		}
		if s.Connections > 0 {
			s.Utilization = float64(s.Active) / float64(s.Connections*p.config.StreamsPerConnection)
		}
		for c := range on.retired {
			s.Active += c.inUse
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b PeerStats) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// Close ends all connections and their streams, and waits until all of them have ended.
func (p *Pool) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		for _, on := range p.peers {
			on.forgotten = true
			if on.redial != nil {
				on.redial.Stop()
			}
			for e := on.waiting.Front(); e != nil; e = on.waiting.Front() {
				on.waiting.Remove(e).(*waiter).place <- place{err: ErrClosed}
			}
			for _, c := range slices.Clone(on.ready) {
				p.retireLocked(on, c, "the pool is closed")
			}
			for c := range on.retired {
				p.end(on, c)
			}
			p.tidy(on)
		}
	}
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
	return nil
}
