package transport_test

import (
	"context"
	"io"
	"testing"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/transporttest"
)

// The carriers below have types of their own, as a carrier of another package has, and
// only the methods that the documentation of package transport requires. With them the
// tests notice when something depends on the multiplexer's types.

func overPlain(t testing.TB) (transport.Session, transport.Session) {
	return foreign(func(st transport.Stream) transport.Stream { return plainStream{st} })(t)
}

func overPrompt(t testing.TB) (transport.Session, transport.Session) {
	return foreign(func(st transport.Stream) transport.Stream {
		return promptStream{plainStream{st}, st.(transport.Prompt)}
	})(t)
}

// TestForeignCarrier is a carrier whose streams are only a Stream.
func TestForeignCarrier(t *testing.T) {
	transporttest.Run(t, overPlain)
}

// TestForeignPromptCarrier is a carrier whose bytes are moved without goroutines.
func TestForeignPromptCarrier(t *testing.T) {
	transporttest.Run(t, overPrompt)
}

// Streams of any two carriers can be joined.
func TestForeignCarriersMeet(t *testing.T) {
	for name, pairs := range map[string][2]transporttest.Pair{
		"TLS and plain":    {overTLS, overPlain},
		"TLS and prompt":   {overTLS, overPrompt},
		"prompt and plain": {overPrompt, overPlain},
	} {
		t.Run(name, func(t *testing.T) {
			for _, pair := range [][2]transporttest.Pair{pairs, {pairs[1], pairs[0]}} {
				a1, f1 := pair[0](t)
				f2, a2 := pair[1](t)
				j := tunnelOn(t, a1, f1, f2, a2)
				j.sessions = []transport.Session{a1, f1, f2, a2}
				for _, way := range [][2]transport.Duplex{{j.user, j.service}, {j.service, j.user}} {
					go func() {
						_, _ = way[0].Write(make([]byte, 300<<10))
						_ = way[0].CloseWrite()
					}()
					if got, err := io.ReadAll(way[1]); err != nil || len(got) != 300<<10 {
						t.Errorf("%d bytes came, %v", len(got), err)
					}
				}
				for _, err := range j.wait(t) {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// foreign gives sessions in memory with streams of another type.
func foreign(dress func(transport.Stream) transport.Stream) transporttest.Pair {
	return func(t testing.TB) (transport.Session, transport.Session) {
		a, b := transport.Pipe()
		t.Cleanup(func() { _ = a.Close() })
		return foreignSession{a, dress}, foreignSession{b, dress}
	}
}

type foreignSession struct {
	transport.Session
	dress func(transport.Stream) transport.Stream
}

func (s foreignSession) Open(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.Open(ctx)
	if err != nil {
		return nil, err
	}
	return s.dress(st), nil
}

func (s foreignSession) Accept(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return s.dress(st), nil
}

func (s foreignSession) OnOpen(do func(transport.Stream)) { transport.AcceptEach(s, do) }

type plainStream struct{ transport.Stream }

type promptStream struct {
	plainStream
	prompt transport.Prompt
}

func (s promptStream) ReadNow(b []byte) (int, error)         { return s.prompt.ReadNow(b) }
func (s promptStream) WriteNow(pieces [][]byte) (int, error) { return s.prompt.WriteNow(pieces) }
func (s promptStream) Watch(onRead, onRoom func())           { s.prompt.Watch(onRead, onRoom) }
