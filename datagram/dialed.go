package datagram

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// Dial makes a flow of a connected socket: what the service at its other end sends, and
// what is sent to it. serve takes what comes in until the flow ends, in a goroutine of
// the caller's; unreachable is called when the system says that nobody is there, which
// ends nothing: a service that is started again goes on with the flow.
func Dial(conn *net.UDPConn, counts *Counts, unreachable func(error)) (flow *Flow, serve func(), err error) {
	_ = conn.SetReadBuffer(buffers) // as much as there is
	_ = conn.SetWriteBuffer(buffers)
	var in receiver
	if err := in.open(conn); err != nil {
		return nil, nil, err
	}
	counts.Open.Add(1)
	flow = newFlow(conn.LocalAddr(), conn.RemoteAddr(), counts, func(payload []byte) error {
		_, err := conn.Write(payload)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			unreachable(err)
		}
		return err
	}, func() {
		counts.Open.Add(-1)
		_ = conn.Close()
	})
	return flow, func() {
		for {
			told := false
			err := in.receive(false, false, func(_ netip.AddrPort, _ netip.Addr, payload []byte) {
				flow.touch()
				told = flow.push(payload) || told
			})
			if told {
				flow.tell()
			}
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // an ICMP message about what was sent
				unreachable(err)
				time.Sleep(time.Millisecond)
			}
		}
	}, nil
}
