package seal_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/transporttest"
)

// laned is a session whose sealed streams go on over lanes from their first record: they
// must do what any stream does.
type laned struct{ sealed }

func (l laned) Open(ctx context.Context) (transport.Stream, error) {
	st, err := l.Session.Open(ctx)
	if err != nil {
		return nil, err
	}
	number, mine := l.seals.draw()
	lane, theirs, err := splicedLanes()
	if err != nil {
		return nil, err
	}
	l.seals.lane(number, theirs) // before the peer can ask
	if _, err := st.Write(number[:]); err != nil {
		return nil, err
	}
	s, err := seal.New(st, mine)
	if err != nil {
		return nil, err
	}
	return lasting{s.(movable), l.Session}, s.(seal.Movable).Move(lane)
}

type movable interface {
	transport.Stream
	transport.Prompt
	transport.ReadStopper
}

// lasting is a stream that says of its session's end what a stream of a session does. A
// lane dies with the peer's session, too, and cannot say why.
type lasting struct {
	movable
	session transport.Session
}

func (l lasting) Read(b []byte) (int, error) {
	n, err := l.movable.Read(b)
	select {
	case <-l.session.Done():
		if errors.Is(err, transport.ErrReset) {
			err = transport.ErrSessionClosed
		}
	default:
	}
	return n, err
}

func (l laned) Accept(ctx context.Context) (transport.Stream, error) {
	for {
		st, err := l.Session.Accept(ctx)
		if err != nil {
			return nil, err
		}
		if s, err := l.unwrap(st); err == nil {
			return lasting{s.(movable), l.Session}, nil
		}
		_ = st.Close()
	}
}

func (l laned) OnOpen(do func(transport.Stream)) { transport.AcceptEach(l, do) }

// splicedLanes gives the two ends of two lanes that are joined.
func splicedLanes() (a, b *transport.Lane, err error) {
	a, fa, err := lanePair()
	if err != nil {
		return nil, nil, err
	}
	b, fb, err := lanePair()
	if err != nil {
		return nil, nil, err
	}
	go func() { _, _, _ = transport.SpliceLanes(fa, fb, transport.Count{}) }()
	return a, b, nil
}

func lanePair() (a, b *transport.Lane, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = ln.Close() }()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	in, err := ln.Accept()
	if err != nil {
		return nil, nil, err
	}
	if a, err = transport.NewLane(out.(*net.TCPConn)); err != nil {
		return nil, nil, err
	}
	b, err = transport.NewLane(in.(*net.TCPConn))
	return a, b, err
}

func TestOverLanes(t *testing.T) {
	pair := overTLS(t)
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) {
		a, b := pair(t)
		s := newSeals()
		s.lanes = map[[2]byte]*transport.Lane{}
		return laned{sealed: sealed{a, s}}, laned{sealed: sealed{b, s}}
	})
}
