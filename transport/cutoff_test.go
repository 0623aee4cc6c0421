package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// A connection that breaks under a session, because its process was killed or because
// somebody in between forged the end, breaks its streams. This must never look like the
// end of the data.
func TestCutConnectionIsNoEndOfData(t *testing.T) {
	for name, torn := range map[string][]byte{"between frames": nil, "in a header": {0x30, 0}, "in a body": data(0, 1, "half")[:headerSize+2]} {
		t.Run(name, func(t *testing.T) {
			s, p := startRaw(t, SessionConfig{})
			p.send(data(flagOpen, 1, "half"))
			st, err := s.Accept(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			user, end := sockets(t)
			spliced := make(chan error, 1)
			go func() {
				_, _, err := Splice(st, end, Count{})
				spliced <- err
			}()
			_ = user.SetDeadline(time.Now().Add(pace.Guard))
			if _, err := io.ReadFull(user, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			p.send(torn)
			_ = p.conn.Close()
			if _, err := user.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the user of the connection saw %v, as if all had come", err)
			}
			_ = user.Close()
			if err := <-spliced; !errors.Is(err, ErrSessionClosed) || errors.Is(err, io.EOF) {
				t.Errorf("splice gave %v", err)
			}
			if _, err := st.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				t.Errorf("read gave %v", err)
			}
			if err := s.Err(); !errors.Is(err, ErrSessionClosed) || errors.Is(err, io.EOF) {
				t.Errorf("the session ended with %v", err)
			}
		})
	}
}

// sockets gives both ends of a TCP connection.
func sockets(t *testing.T) (user, end *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialled.Close() })
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}
