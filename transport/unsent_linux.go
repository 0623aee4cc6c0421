package transport

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes counts what was written to a socket and its peer's system has not
// acknowledged, 0 where that is not known.
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
