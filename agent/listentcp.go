package agent

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// tcpSocket is a listener for connections that become a stream each.
type tcpSocket struct{ net.Listener }

func listenTCP(address netip.AddrPort) (socket, error) {
	// The family is named, or 0.0.0.0 would open the IPv6 addresses too.
	network := "tcp4"
	if address.Addr().Is6() {
		network = "tcp6"
	}
	l, err := net.Listen(network, address.String())
	if err != nil {
		return nil, err
	}
	return tcpSocket{l}, nil
}

// serve takes connections until the socket is closed.
func (s tcpSocket) serve(ls *listeners, l *listener) {
	accept(ls, l, s.Listener, func(conn *net.TCPConn) {
		transport.Unfinished(conn)
		if !ls.a.carry(l, conn) {
			transport.Reset(conn) // the only refusal that a client of any protocol understands
		}
	})
}

// accept takes connections until the socket is closed, and has each served in a
// goroutine of its own. Running out of descriptors, for example, does not end it.
func accept(ls *listeners, l *listener, socket net.Listener, serve func(*net.TCPConn)) {
	pause := 5 * time.Millisecond
	for {
		conn, err := socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			ls.a.log.Warn("accepting connections", "mapping", l.mapping, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		if session, leaving, _ := ls.a.sessions.pick(nil); session == nil && !leaving || !ls.enter(l, conn) {
			transport.Reset(conn)
			continue
		}
		ls.a.start(func() {
			defer ls.exit(l, conn)
			serve(conn.(*net.TCPConn))
		})
	}
}
