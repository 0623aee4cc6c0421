package transport

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// A peer that has sent something and closed while it waited in line is noticed before a
// handshake is computed for it.
func TestHungUp(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, leave := range map[string]func(*net.TCPConn){
		"closed": func(c *net.TCPConn) { _ = c.Close() },
		"reset":  func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		out, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := out.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if hungUp(in) {
			t.Errorf("%s: it is still there", name)
		}
		leave(out.(*net.TCPConn))
		for end := time.Now().Add(pace.Guard); !hungUp(in); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: nobody noticed", name)
			}
		}
	}
}

// A peer whose hello was read a moment ago is not silent, even if nobody has looked at the
// hello yet. One that then says nothing more is.
func TestBytesThatWereReadAreNoSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	visitor := &socket{Conn: in}
	if visitor.Unread() {
		t.Error("bytes have come before any were sent")
	}
	for range 2 {
		if _, err := out.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if !visitor.Unread() {
			t.Error("what came and was read counts as silence")
		}
		if visitor.Unread() {
			t.Error("nothing has come since")
		}
	}
}
