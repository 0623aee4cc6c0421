package transport

import (
	"container/list"
	"net"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/netaddr"
)

// Gate limits strangers, in number and in time. A stranger is a peer that has not
// proved its identity yet. Each listener of a carrier has a Gate, whatever kind its
// connections are.
type Gate struct {
	config  GateConfig
	running sync.WaitGroup // a goroutine for each stranger that is served

	mu      sync.Mutex
	closed  bool
	all     *queue            // all strangers that have a place
	address map[string]*queue // the same strangers, by address
	lines   lines             // the strangers that wait for a place
}

// GateConfig has the limits of a Gate. ListenConfig explains each of them and has the
// defaults. Here all fields must be set.
type GateConfig struct {
	Authenticate, Wait                      time.Duration
	MaxStrangers, MaxPerAddress, MaxWaiting int
	// Hearing is how long a stranger may send nothing before it counts as silent. A
	// silent stranger may be closed to make room for another. While more connections of
	// its address wait than are served, the time is a hundredth of that.
	Hearing time.Duration
}

// Visitor is a connection that comes to a Gate.
type Visitor interface {
	RemoteAddr() net.Addr
	// Unread reports whether unread bytes, or the end, have arrived, or any since it was
	// asked last.
	Unread() bool
	// Close does not block. It may be repeated.
	Close() error
}

// Stranger is a visitor that has not been admitted.
type Stranger struct {
	gate    *Gate
	visitor Visitor
	serve   func(*Stranger)
	host    string

	timer   *time.Timer   // closes visitor when it takes too long; Gate.mu guards this field and the next ones
	spoken  bool          // the stranger has begun a handshake
	all     *list.Element // its place in Gate.all; nil when it was removed
	address *list.Element // its place in the queue or line of its address
}

// queue holds the strangers that have a place, the oldest first. It has two lists:
// silent for the strangers that have sent nothing for Hearing, and served for the
// others.
type queue struct{ silent, served list.List }

func (q *queue) len() int { return q.silent.Len() + q.served.Len() }

// NewGate makes a gate.
func NewGate(config GateConfig) *Gate {
	return &Gate{config: config, all: new(queue), address: make(map[string]*queue), lines: newLines()}
}

// Enter calls serve for a visitor, in a goroutine of its own, as soon as there is a
// place for it. It closes the visitor if too many wait already, or if the visitor waits
// for too long. Enter does not block. Addresses take turns; within an address, the
// first visitor to come is served first.
func (g *Gate) Enter(visitor Visitor, serve func(*Stranger)) {
	s := &Stranger{gate: g, visitor: visitor, serve: serve, host: netaddr.Group(visitor.RemoteAddr().String())}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.lines.count >= g.config.MaxWaiting || g.lines.of(s.host) >= g.config.MaxWaiting/2 {
		_ = visitor.Close()
		return
	}
	g.lines.add(s)
	s.timer = time.AfterFunc(g.config.Wait, func() { g.tire(s) })
	g.settle()
}

// Limit sets a new limit for the stranger from now on, unless the old limit has passed.
func (s *Stranger) Limit(d time.Duration) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.timer != nil && s.timer.Stop() {
		s.timer.Reset(d)
	}
}

// settle gives places to waiting strangers, one address after another. If the limit of
// the address or the limit of all is reached, the oldest silent stranger is closed, if
// there is one. An agent sends its first bytes at once, so the silent connections of a
// flood push out each other. When many thousand agents return at the same moment, those
// that are being served keep their places until they are done, and the others wait. The
// caller holds the lock.
func (g *Gate) settle() {
	if g.closed {
		return
	}
	for {
		if g.all.len() >= g.config.MaxStrangers && g.all.silent.Len() == 0 {
			return // at once: there may be many lines to look at
		}
		s := g.lines.next(func(host string) bool {
			same := g.address[host]
			return (same == nil || same.len() < g.config.MaxPerAddress || g.pushOut(same)) &&
				(g.all.len() < g.config.MaxStrangers || g.pushOut(g.all))
		})
		if s == nil {
			return
		}
		s.timer.Stop()
		same := g.address[s.host]
		if same == nil {
			same = new(queue)
			g.address[s.host] = same
		}
		s.all, s.address = g.all.served.PushBack(s), same.served.PushBack(s)
		s.timer = time.AfterFunc(g.config.Authenticate, func() { _ = s.visitor.Close() })
		g.listenTo(s)
		serve := s.serve
		s.serve = nil                     // frees the function: a session keeps s
		g.running.Go(func() { serve(s) }) // Close has not been called yet, so it will wait for this goroutine
	}
}

// tire closes a connection that has waited too long.
func (g *Gate) tire(s *Stranger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lines.remove(s) {
		_ = s.visitor.Close()
	}
}

// pushOut closes the oldest silent stranger of a queue, if there is one. The caller
// holds the lock.
func (g *Gate) pushOut(q *queue) bool {
	oldest := q.silent.Front()
	if oldest == nil {
		return false
	}
	s := oldest.Value.(*Stranger)
	g.remove(s)
	_ = s.visitor.Close() // does not block
	return true
}

// listenTo marks a stranger as silent if nothing arrives from it in time. The caller
// holds the lock.
func (g *Gate) listenTo(s *Stranger) {
	limit := g.config.Hearing
	if g.lines.of(s.host) > g.config.MaxPerAddress {
		limit /= 100
	}
	time.AfterFunc(limit, func() {
		here := s.visitor.Unread() // bytes that serve has not read yet
		g.mu.Lock()
		defer g.mu.Unlock()
		switch same := g.address[s.host]; {
		case s.all == nil || s.spoken:
		case here:
			g.listenTo(s)
		default:
			g.all.served.Remove(s.all)
			same.served.Remove(s.address)
			s.all, s.address = g.all.silent.PushBack(s), same.silent.PushBack(s)
			g.settle()
		}
	})
}

// Spoke records that the stranger has begun a handshake: it is not pushed out any more.
func (s *Stranger) Spoke() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.all == nil || s.spoken {
		return
	}
	same := g.address[s.host]
	s.spoken = true
	for _, q := range []*list.List{&g.all.silent, &g.all.served} {
		q.Remove(s.all) // from the one that it is in
	}
	for _, q := range []*list.List{&same.silent, &same.served} {
		q.Remove(s.address)
	}
	s.all, s.address = g.all.served.PushBack(s), same.served.PushBack(s)
}

// Admit stops counting the visitor, because it has proved its identity or has gone.
// Admit may be called again.
func (s *Stranger) Admit() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(s)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil // frees the timer: a session keeps s
	}
	g.settle()
}

// remove takes s off the queues. The caller holds the lock.
func (g *Gate) remove(s *Stranger) {
	if s.all == nil {
		return
	}
	same := g.address[s.host]
	for _, q := range []*list.List{&g.all.silent, &g.all.served} {
		q.Remove(s.all) // from the one that it is in
	}
	for _, q := range []*list.List{&same.silent, &same.served} {
		q.Remove(s.address)
	}
	if same.len() == 0 {
		delete(g.address, s.host)
	}
	s.all, s.address = nil, nil
}

// Strangers counts the connections that are served and not yet admitted. Connections
// that wait for their turn do not count.
func (g *Gate) Strangers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all.len()
}

// Close closes the strangers that wait, and accepts no more. It waits until the serve
// function of every stranger has returned; these functions must end by themselves.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	for s := range g.lines.all() {
		s.timer.Stop()
		_ = s.visitor.Close()
	}
	g.mu.Unlock()
	g.running.Wait()
}
