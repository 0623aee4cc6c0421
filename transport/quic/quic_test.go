package quic_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/quic"
	"github.com/tunnox-net/tunnox/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t testing.TB, change func(*transport.ListenConfig)) (*quic.Listener, transport.Pin) {
	t.Helper()
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	dir := t.TempDir()
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := transport.ListenConfig{Certificate: cert}
	if change != nil {
		change(&config)
	}
	l, err := quic.Listen(socket, config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, transport.PinOf(cert.Leaf)
}

func connect(t testing.TB, l *quic.Listener, pin transport.Pin) (agent, server transport.Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	a, err := quic.NewCarrier().Dial(ctx, l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	b, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.Admit()
	t.Cleanup(func() { _ = b.Close() })
	return a, b
}

func TestQUIC(t *testing.T) {
	l, pin := listen(t, nil)
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) { return connect(t, l, pin) })
}

// dialRaw gives a stranger that speaks QUIC and nothing of ours.
func dialRaw(t *testing.T, l *quic.Listener) *quicgo.Conn {
	t.Helper()
	conn, err := quicgo.DialAddr(pace.Within(t, 20*time.Second), l.Addr().String(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"tunnox/1"}}, &quicgo.Config{EnableStreamResetPartialDelivery: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn
}

// ends waits until something has ended.
func ends(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(pace.Guard):
		t.Fatalf("%s goes on", what)
	}
}

func noStrangers(t *testing.T, l *quic.Listener) {
	t.Helper()
	for end := time.Now().Add(pace.Guard); l.Strangers() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d strangers are left", l.Strangers())
		}
	}
}

// Strangers that say nothing, or the wrong thing, or too much, are gone in time.
func TestStrangersAreBounded(t *testing.T) {
	l, pin := listen(t, func(c *transport.ListenConfig) {
		c.Handshake, c.Authenticate = 300*time.Millisecond, time.Minute
	})
	t.Run("no stream", func(t *testing.T) { ends(t, "the connection", dialRaw(t, l).Context().Done()) })
	opened := func(t *testing.T) (*quicgo.Conn, *quicgo.Stream, transport.Session) {
		t.Helper()
		conn := dialRaw(t, l)
		control, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := control.Write(make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept(pace.Within(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return conn, control, s
	}
	for name, attack := range map[string]func(*quicgo.Conn, *quicgo.Stream){
		"a stream before it is admitted": func(conn *quicgo.Conn, _ *quicgo.Stream) {
			if st, err := conn.OpenStream(); err == nil {
				_, _ = st.Write([]byte("x"))
			}
		},
		"a flood of pings": func(_ *quicgo.Conn, control *quicgo.Stream) {
			go func() { _, _ = io.Copy(io.Discard, control) }()
			for range 2000 {
				if _, err := control.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9}); err != nil {
					return
				}
			}
		},
		"a frame of another kind": func(_ *quicgo.Conn, control *quicgo.Stream) { _, _ = control.Write([]byte{9, 0, 0, 0, 0, 0, 0, 0, 9}) },
		"streams that were not opened are taken": func(_ *quicgo.Conn, control *quicgo.Stream) {
			_, _ = control.Write([]byte{3, 0, 0, 0, 0, 0, 0, 0, 9})
		},
		"more than any number of streams": func(_ *quicgo.Conn, control *quicgo.Stream) {
			_, _ = control.Write([]byte{3, 255, 255, 255, 255, 255, 255, 255, 255})
		},
		"the end of the session's own stream": func(_ *quicgo.Conn, control *quicgo.Stream) { _ = control.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			conn, control, s := opened(t)
			attack(conn, control)
			ends(t, "the session", s.Done())
			ends(t, "the connection", conn.Context().Done())
		})
	}
	t.Run("many bytes on the login's stream", func(t *testing.T) {
		conn, _, s := opened(t)
		ours, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write([]byte("who are you?")); err != nil {
			t.Fatal(err)
		}
		theirs, err := conn.AcceptStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = theirs.Write(make([]byte, 64<<10)) }()
		if n, err := io.Copy(io.Discard, ours); err == nil || n > 16<<10+32<<10 { // what is allowed, and the buffer of one Read
			t.Errorf("%d bytes were read, %v", n, err)
		}
		ends(t, "the session", s.Done())
	})
	noStrangers(t, l)
	agent, _ := connect(t, l, pin)
	if _, err := agent.Ping(pace.Within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
}

func TestWhoIsNeverAdmittedIsClosed(t *testing.T) {
	l, pin := listen(t, func(c *transport.ListenConfig) { c.Authenticate = 300 * time.Millisecond })
	s, err := quic.NewCarrier().Dial(pace.Within(t, 20*time.Second), l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	theirs, err := l.Accept(pace.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ends(t, "the session", s.Done())
	noStrangers(t, l)
}

// The server is verified as over TLS, at a second handshake too, which resumes the first.
func TestTheServerIsVerified(t *testing.T) {
	l, pin := listen(t, nil)
	c := quic.NewCarrier()
	for range 2 {
		if _, err := c.Dial(pace.Within(t, 20*time.Second), l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{{1}}}); !errors.Is(err, transport.ErrPin) {
			t.Errorf("another pin: %v", err)
		}
		s, err := c.Dial(pace.Within(t, 20*time.Second), l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin}})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept(pace.Within(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ping(t.Context()); err != nil { // by then the ticket has come
			t.Error(err)
		}
		_, _ = s.Close(), theirs.Close()
	}
	if _, err := c.Dial(pace.Within(t, 20*time.Second), l.Addr().String(), transport.DialConfig{}); err == nil {
		t.Error("the system vouches for a certificate that signed itself")
	}
}

// A close of either side is told to the other at once, and sessions outlive their
// listener.
func TestClose(t *testing.T) {
	for _, side := range []string{"agent", "server"} {
		l, pin := listen(t, nil)
		agent, server := connect(t, l, pin)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if _, err := agent.Ping(pace.Within(t, 20*time.Second)); err != nil {
			t.Errorf("the listener's close ended a session: %v", err)
		}
		closes, other := agent, server
		if side == "server" {
			closes, other = server, agent
		}
		_ = closes.Close()
		start := time.Now()
		ends(t, "the other side", other.Done())
		if took := time.Since(start); took > 5*time.Second || !strings.Contains(other.Err().Error(), "the peer ended it") {
			t.Errorf("after the %s's close: %v, %v", side, took, other.Err())
		}
	}
}

// A peer that is gone without a word is given up after 15 s.
func TestBlackHoleIsNoticed(t *testing.T) {
	l, pin := listen(t, nil)
	hole := holed(t, l.Addr().String())
	s, err := quic.NewCarrier().Dial(pace.Within(t, 20*time.Second), hole.address, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	theirs, err := l.Accept(pace.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Admit()
	defer theirs.Close()
	hole.swallow.Store(true)
	start := time.Now()
	for _, end := range []transport.Session{s, theirs} {
		ends(t, "the session", end.Done())
		if took := time.Since(start); took > 17*time.Second || !strings.Contains(end.Err().Error(), "nothing came for") {
			t.Errorf("ended after %v: %v", took, end.Err())
		}
	}
}

// relay passes packets on, and can swallow all of them. To the server it is a NAT.
type relay struct {
	address string
	swallow atomic.Bool

	front  net.PacketConn
	client atomic.Pointer[net.Addr]
	back   atomic.Pointer[net.Conn]
	loops  sync.WaitGroup
}

func holed(t *testing.T, to string) *relay {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: front.LocalAddr().String(), front: front}
	r.rebind(t, to)
	r.loops.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := front.ReadFrom(b)
			if err != nil {
				return
			}
			r.client.Store(&from)
			if !r.swallow.Load() {
				_, _ = (*r.back.Load()).Write(b[:n])
			}
		}
	})
	t.Cleanup(func() { _ = front.Close(); _ = (*r.back.Load()).Close(); r.loops.Wait() })
	return r
}

// rebind gives the client another address towards the server.
func (r *relay) rebind(t *testing.T, to string) {
	t.Helper()
	back, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	if old := r.back.Swap(&back); old != nil {
		_ = (*old).Close()
	}
	r.loops.Go(func() {
		b := make([]byte, 2048)
		for {
			n, err := back.Read(b)
			if err != nil {
				return
			}
			if !r.swallow.Load() {
				_, _ = r.front.WriteTo(b[:n], *r.client.Load())
			}
		}
	})
}

// A client whose address changes, as behind a NAT that forgot it, keeps its session.
func TestASessionSurvivesANewAddress(t *testing.T) {
	l, pin := listen(t, nil)
	r := holed(t, l.Addr().String())
	s, err := quic.NewCarrier().Dial(pace.Within(t, 20*time.Second), r.address, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	theirs, err := l.Accept(pace.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Admit()
	defer theirs.Close()
	before := theirs.RemoteAddr().String()
	r.rebind(t, l.Addr().String())
	for end := time.Now().Add(pace.Guard); theirs.RemoteAddr().String() == before; {
		if _, err := s.Ping(pace.Within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the server does not see the new address")
		}
	}
}
