package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// tcpCloseWait is the state of a connection whose peer has closed its end
// (TCP_CLOSE_WAIT in include/net/tcp_states.h).
const tcpCloseWait = 8

// hungUp reports whether the peer has closed its end, even if there are bytes to read
// before that. A peer that wants a handshake does not close its end before it.
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

// received counts the bytes that have come over a connection, read or not.
func received(conn net.Conn) (n uint64) {
	raw := rawConn(conn)
	if raw == nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_received
		}
	})
	return n
}
