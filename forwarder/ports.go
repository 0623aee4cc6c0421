package forwarder

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/domain"
)

// Ports are the public ports of a forwarder, First to Last.
type Ports struct {
	First, Last int
	// Listen opens one of them.
	Listen func(port int) (net.Listener, error)
}

// portRetry is how often a port that could not be opened is tried again: the program
// that held it may have gone.
const portRetry = 2 * time.Second

// ports are the listeners of public ports. There is one for each usable mapping that
// has a port of this forwarder's range.
type ports struct {
	f          *Forwarder
	of         domain.Ingress
	listen     func(port int) (net.Listener, error)
	changed    chan struct{} // the mappings have
	complaints *rate.Limiter // of accepting

	mu     sync.Mutex
	open   map[int]*portListener // guarded by mu, like failed
	failed map[int]error
}

// portListener is the listener of one port. Its mapping never changes: another
// mapping's is another listener.
type portListener struct {
	port    int
	mapping int64
	socket  net.Listener
}

func newPorts(f *Forwarder, p *Ports) *ports {
	if p == nil {
		return nil
	}
	return &ports{f: f, of: domain.Ingress{FirstPort: p.First, LastPort: p.Last}, listen: p.Listen,
		changed: make(chan struct{}, 1), complaints: rate.NewLimiter(strangersPerSecond, strangersAtOnce),
		open: map[int]*portListener{}, failed: map[int]error{}}
}

// keep makes the listeners what the routes say, until ctx ends; then there are none.
func (p *ports) keep(ctx context.Context) {
	defer p.settle(nil)
	p.f.openIngress(ctx, p.of)
	retry := time.NewTicker(portRetry)
	defer retry.Stop()
	for {
		var wanted map[int]int64
		if !p.f.draining.Load() { // who comes now is to find another forwarder
			wanted = p.f.routes.publicPorts(p.of)
		}
		p.settle(wanted)
		for wait := true; wait; {
			select {
			case <-p.changed:
				wait = false
			case <-retry.C:
				wait = len(p.failures()) == 0
			case <-ctx.Done():
				return
			}
		}
	}
}

// settle closes what is not wanted, then opens what is: a port that went from one
// mapping to another is free by then.
func (p *ports) settle(wanted map[int]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for port, l := range p.open {
		if wanted[port] != l.mapping {
			_ = l.socket.Close()
			delete(p.open, port)
			p.f.log.Info("public port closed", "port", port, "mapping", l.mapping)
		}
	}
	for port := range p.failed {
		if wanted[port] == 0 {
			delete(p.failed, port)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(wanted)) {
		if p.open[port] == nil {
			p.bind(port, wanted[port])
		}
	}
}

// bind opens a port. The lock is held.
func (p *ports) bind(port int, mapping int64) {
	socket, err := p.listen(port)
	if err != nil {
		if was := p.failed[port]; was == nil || was.Error() != err.Error() {
			p.f.log.Warn("a public port cannot be opened, trying on", "port", port, "mapping", mapping, "error", err)
		}
		p.failed[port] = err
		return
	}
	delete(p.failed, port)
	l := &portListener{port: port, mapping: mapping, socket: socket}
	if !p.f.start(func() { p.accept(l) }) {
		_ = socket.Close()
		return
	}
	p.open[port] = l
	p.f.log.Info("public port opened", "port", port, "mapping", mapping)
}

// accept takes connections until the socket is closed. Running out of descriptors,
// for example, does not end it.
func (p *ports) accept(l *portListener) {
	var pause backoff
	for {
		conn, err := l.socket.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if p.complaints.Allow() {
				p.f.log.Warn("accepting at a public port, trying on", "port", l.port, "mapping", l.mapping, "error", err)
			}
			pause.Wait(p.f.ctx)
			continue
		}
		pause.Reset()
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			_ = conn.Close()
			continue
		}
		p.f.visit(&fromPort{f: p.f, port: l.port, mapping: l.mapping}, tcp)
	}
}

// failures gives why ports that are wanted are not open.
func (p *ports) failures() map[int]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.failed)
}

// count gives how many are open, and how many cannot be.
func (p *ports) count() (open, failed int) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open), len(p.failed)
}

// ClosedPorts gives the public ports that should be open and cannot be, with the
// reason.
func (f *Forwarder) ClosedPorts() map[int]error {
	if f.ports == nil {
		return nil
	}
	return f.ports.failures()
}

// publicPorts gives the ports of the range that mappings are to be reached at now,
// and which.
func (r *routes) publicPorts(of domain.Ingress) map[int]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[int]int64{}
	h := r.ingresses[of]
	if h == nil {
		return wanted
	}
	for id, m := range h.mappings {
		if of.Has(&m.State) && r.usable(m) == "" {
			wanted[m.State.PublicPort] = id
		}
	}
	return wanted
}
