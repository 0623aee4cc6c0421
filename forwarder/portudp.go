package forwarder

import (
	"time"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/domain"
)

// Bounds of the flows at one public UDP port. Sources may be forged, so that whoever
// sends a datagram has shown nothing; docs/decisions/udp.md.
const (
	portFlows           = 4096
	portFlowsPerSource  = 512
	portFlowsPerSecond  = 500
	defaultIdle         = 60 * time.Second
	pauseAfterSocketErr = 100 * time.Millisecond
)

// udpPort is a public port whose flows become a stream each.
type udpPort struct {
	*datagram.Socket
	p       *ports
	key     portKey
	mapping int64
}

func openUDP(p *ports, key portKey, mapping int64) (portSocket, error) {
	s, err := p.listen.ListenPacket(key.number)
	if err != nil {
		return nil, err
	}
	return &udpPort{s, p, key, mapping}, nil
}

// serve takes datagrams until the socket is closed.
func (u *udpPort) serve() {
	f := u.p.f
	var flows *datagram.Flows
	flows = datagram.NewFlows(datagram.Config{
		Idle: func() time.Duration { return f.routes.idle(u.mapping) },
		Most: portFlows, MostPerSource: portFlowsPerSource, NewPerSecond: portFlowsPerSecond,
		Budget: datagram.NewBudget(), Counts: &f.metrics.datagrams,
		Carry: func(flow *datagram.Flow) bool {
			from := &fromPort{f: f, port: u.key.number, mapping: u.mapping, peer: flow.RemoteAddr(), local: flow.LocalAddr()}
			return f.admitVisitor(func() { f.serveVisitor(from, flow, flow, func() { flows.Refuse(flow) }) })
		},
	})
	flows.Serve(u.Socket, func(err error) {
		u.p.complain(u.key, u.mapping, err)
		time.Sleep(pauseAfterSocketErr)
	})
}

// idle is after how long a silent flow of a mapping ends.
func (r *routes) idle(mapping int64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.mappings[mapping]; m != nil {
		if seconds := m.State.Options.Shown(domain.ProtocolUDP).IdleSeconds; seconds > 0 {
			return time.Duration(seconds) * time.Second
		}
	}
	return defaultIdle
}
