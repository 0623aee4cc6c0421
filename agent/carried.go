package agent

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carriedStreams are the connections to services that a list of rules has allowed, so
// that they can be ended when it does so no more. A connection for web visitors carries
// the requests of many, one after the other, and would go on for as long as they ask. The
// zero value is ready.
type carriedStreams struct {
	mu  sync.Mutex
	all map[*carriedStream]struct{} // guarded by mu
}

type carriedStream struct {
	q            question // with the time when it began
	stream, conn net.Conn
}

// add notes a connection; done forgets it. The rules may have changed since they were
// asked: one that is not allowed ends at once.
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

// setPolicy has another policy hold. Connections that it does not allow, and no tunnel of
// a program of this machine does, end. Hours are those in which they began.
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
