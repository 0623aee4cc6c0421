package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// outbox is the unsent bytes of a socket.
type outbox struct {
	raw syscall.RawConn
	ask func(fd uintptr) // made once
	n   int
}

// newOutbox gives nil if the connection is not a TCP socket.
func newOutbox(conn net.Conn) *outbox {
	if _, tcp := conn.(*net.TCPConn); !tcp {
		return nil
	}
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	o := &outbox{raw: raw}
	o.ask = func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD); err == nil {
			o.n = n
		}
	}
	return o
}

// unsent counts the bytes that the system has not sent yet.
func (o *outbox) unsent() int {
	o.n = 0
	_ = o.raw.Control(o.ask)
	return o.n
}
