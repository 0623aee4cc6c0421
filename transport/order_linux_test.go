package transport_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// unacknowledged counts the bytes that the peer's system does not have yet.
func unacknowledged(t *testing.T, c *net.TCPConn) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}
