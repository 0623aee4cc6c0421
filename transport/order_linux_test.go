package transport_test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunnox-net/tunnox/transport"
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

// Many bytes that are under way before a reset arrive too, as fast as the reader reads.
func TestMuchBeforeAResetArrives(t *testing.T) {
	overSplices(t, func(t *testing.T, user, service *net.TCPConn) {
		_ = service.SetReadBuffer(4 << 10)
		const much = 200 << 10
		_, _ = user.Write(make([]byte, much))
		for end := time.Now().Add(10 * time.Second); unacknowledged(t, user) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		_ = transport.Reset(user)
		time.Sleep(50 * time.Millisecond) // by now the reset has arrived everywhere; if not, the test is easier
		n, err := io.Copy(io.Discard, service)
		if n != much || !isReset(err) {
			t.Errorf("%d bytes of %d came, then %v", n, much, err)
		}
	})
}
