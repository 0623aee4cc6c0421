package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes counts the bytes that were written to a socket and that the peer's system
// has not acknowledged. It gives 0 if that is not known.
func unsentBytes(conn net.Conn) (n int) {
	raw := rawConn(conn)
	if raw == nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); n < 0 {
			n = 0
		}
	})
	return n
}
