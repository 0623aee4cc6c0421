package transport

import (
	"container/list"
	"net"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/netaddr"
)

// Gate holds strangers to bounds in number and in time: peers that have not
// proved yet who they are. Each listener of a carrier has one, whatever its
// connections are.
type Gate struct {
	config  GateConfig
	running sync.WaitGroup // a goroutine for each stranger that is served

	mu      sync.Mutex
	closed  bool
	all     *queue            // of strangers
	address map[string]*queue // the same by address
	lines   lines             // of those for whom there is no place
}

// GateConfig has the bounds of a Gate. ListenConfig says what each of them means,
// and has the defaults; here all are set.
type GateConfig struct {
	Authenticate, Wait                      time.Duration
	MaxStrangers, MaxPerAddress, MaxWaiting int
	// Hearing is how long a stranger may take to say something before it counts as
	// silent, and can be pushed out; a hundredth of it where more of its address wait
	// than are served.
	Hearing time.Duration
}

// Visitor is a connection that comes to a Gate.
type Visitor interface {
	RemoteAddr() net.Addr
	// Unread tells whether something has come that nobody has read, if only the end.
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

	timer   *time.Timer   // closes visitor when it takes too long; guarded by Gate.mu, like the next
	spoken  bool          // it has begun a handshake
	all     *list.Element // of Gate.all, nil when it was removed
	address *list.Element // of its address
}

// queue holds strangers that have a place, the oldest first: those of whom nothing
// had come when it was their turn apart from those that are being served.
type queue struct{ silent, served list.List }

func (q *queue) len() int { return q.silent.Len() + q.served.Len() }

// NewGate makes a gate.
func NewGate(config GateConfig) *Gate {
	return &Gate{config: config, all: new(queue), address: make(map[string]*queue), lines: newLines()}
}

// Enter has a visitor served, in a goroutine of its own, as soon as there is a place
// for it, or closed where too many wait already or it waits for too long. It does
// not block. Who comes first is served first, address by address.
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

// Limit gives the stranger a new limit from now on, if it has not taken too long.
func (s *Stranger) Limit(d time.Duration) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.timer != nil && s.timer.Stop() {
		s.timer.Reset(d)
	}
}

// settle gives places to those who wait, an address after the other. Where the cap
// of an address or of all is reached, the oldest of whom nothing has come goes, if
// there is one. An agent says something at once, so that those who flood push out
// themselves. When many thousand agents come back at the same moment, those that are
// being served stay until they are, and the others wait. The lock is held.
func (g *Gate) settle() {
	if g.closed {
		return
	}
	for {
		if g.all.len() >= g.config.MaxStrangers && g.all.silent.Len() == 0 {
			return // without a look at each of the lines, of which there may be many
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
		s.serve = nil                     // a session keeps s
		g.running.Go(func() { serve(s) }) // Close has not been called, so it waits for that
	}
}

// tire closes a connection that has waited for too long.
func (g *Gate) tire(s *Stranger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lines.remove(s) {
		_ = s.visitor.Close()
	}
}

// pushOut closes the oldest of a queue that has said nothing, if there is one. The
// lock is held.
func (g *Gate) pushOut(q *queue) bool {
	oldest := q.silent.Front()
	if oldest == nil {
		return false
	}
	s := oldest.Value.(*Stranger)
	g.remove(s)
	_ = s.visitor.Close() // which does not block
	return true
}

// listenTo notes it if nothing comes from a stranger in time. The lock is held.
func (g *Gate) listenTo(s *Stranger) {
	limit := g.config.Hearing
	if g.lines.of(s.host) > g.config.MaxPerAddress {
		limit /= 100
	}
	time.AfterFunc(limit, func() {
		here := s.visitor.Unread() // and nobody has come to it yet
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

// Spoke notes that the stranger has begun a handshake: it is pushed out no more.
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

// Admit counts the visitor no more, because it has proved who it is or has gone; it
// may be repeated.
func (s *Stranger) Admit() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(s)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil // a session keeps s
	}
	g.settle()
}

// remove takes s off the queues. The lock is held.
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

// Strangers counts the connections that were not admitted yet, without those that
// wait to be looked at.
func (g *Gate) Strangers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all.len()
}

// Close closes those who wait, takes no more and waits until nobody is served: what
// serve was given to do must end by itself.
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
