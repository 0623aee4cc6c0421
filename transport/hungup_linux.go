package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// tcpCloseWait is the state of a connection of which the peer has closed its end
// (TCP_CLOSE_WAIT in include/net/tcp_states.h).
const tcpCloseWait = 8

// hungUp tells whether the peer has closed its end, whatever is still to be read
// before that. Nobody does so before a handshake who wants one.
func hungUp(conn net.Conn) (gone bool) {
	raw := rawConn(conn)
	if raw == nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err == nil && (info.State == tcpCloseWait || info.State == tcpClose)
	})
	return gone
}

// tcpClose is the state of a connection that was reset.
const tcpClose = 7
