package agent

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carriedStreams are the connections to services that a list of rules has allowed. They
// end when the list does not allow them any more. This matters most for web services: one
// connection carries the requests of many visitors, and would go on for as long as they
// come. The zero value is ready.
type carriedStreams struct {
	mu  sync.Mutex
	all map[*carriedStream]struct{} // guarded by mu
}

type carriedStream struct {
	q            question // with the time when it began
	stream, conn net.Conn
}

// add notes a connection; done forgets it. The rules may have changed since they were
// asked. If they do not allow the connection now, add ends it.
func (c *carriedStreams) add(open *wirepb.Open, stream, conn net.Conn, allowed func(question) bool) (done func()) {
	s := &carriedStream{q: question{protocol: protocolOf(open), now: time.Now()}, stream: stream, conn: conn}
	switch open.GetProtocol() {
	case "unix":
		s.q.at = &place{unixPlace, open.GetService()}
	case "files":
		s.q.at = &place{filePlace, open.GetService()}
	default:
		host, _, err := net.SplitHostPort(open.GetService())
		at, addrErr := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || addrErr != nil {
			return func() {} // an embedder's dial gives other addresses
		}
		s.q.host, s.q.addr, s.q.port = host, at.Addr(), at.Port()
	}
	c.mu.Lock()
	if c.all == nil {
		c.all = map[*carriedStream]struct{}{}
	}
	c.all[s] = struct{}{}
	c.mu.Unlock()
	if !allowed(s.q) {
		s.end()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.all, s)
	}
}

// keep ends the connections that are not allowed.
func (c *carriedStreams) keep(allowed func(question) bool) {
	c.mu.Lock()
	var over []*carriedStream
	for s := range c.all {
		if !allowed(s.q) {
			over = append(over, s)
		}
	}
	c.mu.Unlock()
	for _, s := range over {
		s.end()
	}
}

func (s *carriedStream) end() {
	_ = transport.Reset(s.stream)
	_ = transport.Reset(s.conn)
}

// setPolicy replaces the policy. A connection ends if neither the new policy nor a tunnel
// of a program of this machine allows it. For rules with hours, the hour in which the
// connection began counts.
func (t *target) setPolicy(p Policy) {
	t.policy.Store(&p)
	t.carried.keep(t.allows)
}

// allows tells whether the present policy, or a program of this machine, allows a
// connection.
func (t *target) allows(q question) bool {
	if t.policy.Load().ask(q).allowed {
		return true
	}
	if q.at != nil {
		_, ok := t.asked.allowsPlace(*q.at)
		return ok
	}
	return t.asked.allows(q.host, q.addr, q.port)
}
