package forwarder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/domain"
)

// Ports are the public ports of a forwarder, First to Last.
type Ports struct {
	First, Last int
	// Listen opens one of them for connections, and ListenPacket for datagrams.
	Listen       func(port int) (net.Listener, error)
	ListenPacket func(port int) (*datagram.Socket, error)
}

// portRetry is how often a port that could not be opened is tried again: the program
// that used it may have ended.
const portRetry = 2 * time.Second

// ports are the listeners of public ports. There is one for each port of this
// forwarder's range that a usable mapping has.
type ports struct {
	f          *Forwarder
	of         domain.Ingress
	listen     *Ports
	changed    chan struct{} // the mappings have changed
	complaints *rate.Limiter // about sockets that fail and stay open

	mu     sync.Mutex
	open   map[portKey]*portListener // guarded by mu, like failed
	failed map[portKey]error
}

// portKey names a port: one number is two ports, and may be two mappings'.
type portKey struct {
	protocol domain.Protocol
	number   int
}

// portListener is the listener of one port. Its mapping never changes: another mapping
// gets another listener.
type portListener struct {
	mapping int64
	socket  portSocket
}

// portSocket is a public port that is open. Closing it ends serve.
type portSocket interface {
	// serve takes what comes in, until the socket is closed.
	serve()
	Close() error
}

// portKinds open a port, by what its mapping carries: a file each, such as porttcp.go.
var portKinds = map[domain.Protocol]func(p *ports, key portKey, mapping int64) (portSocket, error){
	domain.ProtocolTCP: openTCP,
	domain.ProtocolUDP: openUDP,
}

func newPorts(f *Forwarder, p *Ports) *ports {
	if p == nil {
		return nil
	}
	return &ports{f: f, of: domain.Ingress{FirstPort: p.First, LastPort: p.Last}, listen: p,
		changed: make(chan struct{}, 1), complaints: rate.NewLimiter(strangersPerSecond, strangersAtOnce),
		open: map[portKey]*portListener{}, failed: map[portKey]error{}}
}

// keep makes the listeners match the routes until ctx ends, and then closes all of
// them.
func (p *ports) keep(ctx context.Context) {
	defer p.settle(nil)
	p.f.openIngress(ctx, p.of)
	retry := time.NewTicker(portRetry)
	defer retry.Stop()
	for {
		wanted := p.f.routes.publicPorts(p.of)
		if p.f.draining.Load() { // new visitors should find another forwarder; a socket of flows stays open and accepts no new flows
			maps.DeleteFunc(wanted, func(key portKey, _ int64) bool { return key.protocol == domain.ProtocolTCP })
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

// settle first closes the listeners that are not wanted, and then opens the wanted
// ones: a port that moved from one mapping to another is free by then.
func (p *ports) settle(wanted map[portKey]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	opened, closed, failed := portNews{}, portNews{}, portNews{}
	for key, l := range p.open {
		if wanted[key] != l.mapping {
			_ = l.socket.Close()
			delete(p.open, key)
			closed.add(key, l.mapping)
		}
	}
	closed.each(func(key portKey, mapping int64, ports string) {
		p.f.log.Info("public port closed", "port", ports, "protocol", key.protocol, "mapping", mapping)
	})
	for key := range p.failed {
		if wanted[key] == 0 {
			delete(p.failed, key)
		}
	}
	for key, mapping := range wanted {
		if p.open[key] != nil {
			continue
		}
		was := p.failed[key]
		switch err := p.bind(key, mapping); {
		case err == nil && p.open[key] != nil:
			opened.add(key, mapping)
		case err != nil && (was == nil || was.Error() != err.Error()):
			failed.add(key, mapping)
		}
	}
	opened.each(func(key portKey, mapping int64, ports string) {
		p.f.log.Info("public port opened", "port", ports, "protocol", key.protocol, "mapping", mapping)
	})
	failed.each(func(key portKey, mapping int64, ports string) {
		p.f.log.Warn("a public port cannot be opened, trying again", "port", ports, "protocol", key.protocol, "mapping", mapping, "error", p.failed[key])
	})
}

// portNews are the ports of mappings about which there is one thing to say in the log:
// one line for a mapping, however many ports it has.
type portNews map[int64][]portKey

func (n portNews) add(key portKey, mapping int64) { n[mapping] = append(n[mapping], key) }

// each gives the ports of each mapping as a text, and the lowest of them.
func (n portNews) each(say func(lowest portKey, mapping int64, ports string)) {
	for mapping, keys := range n {
		slices.SortFunc(keys, func(a, b portKey) int { return a.number - b.number })
		ports := make([]int, len(keys))
		for i, key := range keys {
			ports[i] = key.number
		}
		say(keys[0], mapping, portsText(ports))
	}
}

// portsText writes ports in order, those in a row as FROM-TO: "20000-20003, 20007".
func portsText(ports []int) string {
	var parts []string
	for i := 0; i < len(ports); {
		j := i
		for j+1 < len(ports) && ports[j+1] == ports[j]+1 {
			j++
		}
		parts = append(parts, domain.PortRange{First: ports[i], Last: ports[j]}.String())
		i = j + 1
	}
	const most = 20
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// bind opens a port. The caller holds the lock.
func (p *ports) bind(key portKey, mapping int64) error {
	open := portKinds[key.protocol]
	if open == nil {
		return nil // no public port carries it: the domain has refused the mapping
	}
	socket, err := open(p, key, mapping)
	if err != nil {
		p.failed[key] = err
		return err
	}
	delete(p.failed, key)
	if !p.f.start(socket.serve) {
		_ = socket.Close()
		return nil
	}
	p.open[key] = &portListener{mapping: mapping, socket: socket}
	return nil
}

// complain logs a failure of a socket that stays open.
func (p *ports) complain(key portKey, mapping int64, err error) {
	if p.complaints.Allow() {
		p.f.log.Warn("a public port failed, trying again", "port", key.number, "protocol", key.protocol, "mapping", mapping, "error", err)
	}
}

// failures gives the wanted ports that are not open, with the reasons.
func (p *ports) failures() map[int]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	failures := map[int]error{}
	for key, err := range p.failed {
		failures[key.number] = errors.Join(failures[key.number], fmt.Errorf("%s: %w", key.protocol, err))
	}
	return failures
}

// count gives how many ports are open, and how many cannot be opened.
func (p *ports) count() (open, failed int) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open), len(p.failed)
}

// ClosedPorts gives the public ports that should be open and cannot be opened, with the
// reasons.
func (f *Forwarder) ClosedPorts() map[int]error {
	if f.ports == nil {
		return nil
	}
	return f.ports.failures()
}

// publicPorts gives the ports of the range that mappings have now, and the mappings.
func (r *routes) publicPorts(of domain.Ingress) map[portKey]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[portKey]int64{}
	h := r.ingresses[of]
	if h == nil {
		return wanted
	}
	for id, m := range h.mappings {
		if of.Has(&m.State) && r.usable(m) == "" {
			ports := m.State.PublicPort
			for port := max(ports.First, of.FirstPort); port <= min(ports.Last, of.LastPort); port++ {
				wanted[portKey{m.State.Protocol, port}] = id
			}
		}
	}
	return wanted
}
