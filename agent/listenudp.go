package agent

import (
	"net/netip"
	"time"

	"github.com/tunnox-net/tunnox/datagram"
)

const (
	// maxFlows and maxFlowsPerSource bound what datagrams can make a listener hold. The
	// programs of one machine are one source, so that there may be many.
	maxFlows, maxFlowsPerSource = 4096, 2048
)

// udpSocket is a listener for datagrams, whose flows become a stream each.
type udpSocket struct{ *datagram.Socket }

func listenUDP(address netip.AddrPort) (socket, error) {
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp6"
	}
	s, err := datagram.Listen(network, address.String())
	if err != nil {
		return nil, err
	}
	return udpSocket{s}, nil
}

// serve takes datagrams until the socket is closed.
func (s udpSocket) serve(ls *listeners, l *listener) {
	var flows *datagram.Flows
	flows = datagram.NewFlows(datagram.Config{
		Idle: func() time.Duration { return l.options.Load().idle() },
		Most: maxFlows, MostPerSource: maxFlowsPerSource, Counts: &ls.a.datagrams,
		Carry: func(f *datagram.Flow) bool {
			if !ls.enter(l, f) {
				return false
			}
			ls.a.start(func() {
				defer ls.exit(l, f)
				if !ls.a.carry(l, f) {
					flows.Refuse(f)
				}
			})
			return true
		},
	})
	flows.Serve(s.Socket, func(err error) {
		ls.a.log.Warn("cannot receive datagrams", "mapping", l.mapping, "error", err)
		time.Sleep(100 * time.Millisecond)
	})
}
