package ingress

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// announced stands for a connection of a proxy: a socket in a type of its own.
type announced struct{ *net.TCPConn }

// A connection that is aborted is reset, also one that a proxy in front has made: an end
// in order would say that the answer is whole.
func TestAbortResetsWhateverWrapsTheSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, wrap := range map[string]func(*net.TCPConn) net.Conn{
		"a socket":  func(c *net.TCPConn) net.Conn { return &visitorConn{Conn: c} },
		"a proxy's": func(c *net.TCPConn) net.Conn { return &visitorConn{Conn: announced{c}} },
	} {
		peer, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		abort(wrap(c.(*net.TCPConn)))
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(peer); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s ends with %v, want a reset", name, err)
		}
		_ = peer.Close()
	}
}
