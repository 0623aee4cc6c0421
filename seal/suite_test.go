package seal_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sealed is a session whose streams are sealed: a sealed stream must do what any does.
type sealed struct {
	transport.Session
	seals *seals
}

// seals gives both ends of a stream the same secrets. The opener draws them and sends
// their number first, which stands for the handshake.
type seals struct {
	mu   sync.Mutex
	made map[[2]byte]*seal.Secrets
	next int

	lanes map[[2]byte]*transport.Lane // of those that the opener moves; nil: it moves none
}

func newSeals() *seals {
	return &seals{made: map[[2]byte]*seal.Secrets{}}
}

func (s *seals) draw() (number [2]byte, mine *seal.Secrets) {
	mine, theirs := seal.Drawn()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	number = [2]byte{byte(s.next >> 8), byte(s.next)}
	s.made[number] = theirs
	return number, mine
}

func (s *seals) take(number [2]byte) *seal.Secrets {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.made, number)
	return s.made[number]
}

func (s sealed) Open(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.Open(ctx)
	if err != nil {
		return nil, err
	}
	number, mine := s.seals.draw()
	if _, err := st.Write(number[:]); err != nil {
		return nil, err
	}
	return seal.New(st, mine)
}

func (s sealed) Accept(ctx context.Context) (transport.Stream, error) {
	for {
		st, err := s.Session.Accept(ctx)
		if err != nil {
			return nil, err
		}
		if sealed, err := s.unwrap(st); err == nil { // otherwise it was reset before its number came
			return sealed, nil
		}
		_ = st.Close()
	}
}

func (s sealed) unwrap(st transport.Stream) (transport.Stream, error) {
	var number [2]byte
	for n := 0; n < len(number); {
		m, err := st.Read(number[n:])
		if err != nil {
			return nil, err
		}
		n += m
	}
	opened, err := seal.New(st, s.seals.take(number))
	if lane := s.seals.lane(number, nil); lane != nil && err == nil {
		err = opened.(seal.Movable).Expect(lane)
	}
	return opened, err
}

// lane keeps a lane for the stream's other end, or gives the one that is kept.
func (s *seals) lane(number [2]byte, kept *transport.Lane) *transport.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept != nil {
		s.lanes[number] = kept
		return nil
	}
	defer delete(s.lanes, number)
	return s.lanes[number]
}

func (s sealed) OnOpen(do func(transport.Stream)) { transport.AcceptEach(s, do) }

func over(pair transporttest.Pair) transporttest.Pair {
	return func(t testing.TB) (transport.Session, transport.Session) {
		a, b := pair(t)
		s := newSeals()
		return sealed{a, s}, sealed{b, s}
	}
}

func memory(t testing.TB) (transport.Session, transport.Session) {
	a, b := transport.Pipe()
	t.Cleanup(func() { _ = a.Close() })
	return a, b
}

func TestOverMemory(t *testing.T) { transporttest.Run(t, over(memory)) }

func TestOverTLS(t *testing.T) { transporttest.Run(t, over(overTLS(t))) }

// A carrier that is no Prompt, as QUIC is.
func TestOverPlainCarrier(t *testing.T) {
	transporttest.Run(t, over(func(t testing.TB) (transport.Session, transport.Session) {
		a, b := memory(t)
		return plain{a}, plain{b}
	}))
}

type plain struct{ transport.Session }

func (s plain) Open(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.Open(ctx)
	return plainStream{st}, err
}

func (s plain) Accept(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.Accept(ctx)
	return plainStream{st}, err
}

type plainStream struct{ transport.Stream }

func (s plainStream) StopRead() error { return s.Stream.(transport.ReadStopper).StopRead() }

func overTLS(t testing.TB) transporttest.Pair {
	dir := t.TempDir()
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return func(t testing.TB) (transport.Session, transport.Session) { return connectTLS(t, cert) }
}

func connectTLS(t testing.TB, cert tls.Certificate) (transport.Session, transport.Session) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := transport.ListenTLS(ln, transport.ListenConfig{Certificate: cert}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	a, err := transport.DialTLS(ctx, l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{transport.PinOf(cert.Leaf)}})
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
