package muxbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	yamux "github.com/libp2p/go-yamux/v5"

	"github.com/tunnox-net/tunnox/transport"
)

// yamuxSession is a Session over a connection with libp2p's yamux.
type yamuxSession struct {
	*yamux.Session
	conn    net.Conn
	binding []byte
	accept  chan *yamux.Stream
	done    chan struct{}

	mu  sync.Mutex
	err error
}

func newYamux(conn net.Conn, client bool, binding []byte, config transport.SessionConfig) (transport.Session, error) {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.KeepAliveInterval = config.PingEvery
	c.ConnectionWriteTimeout = config.DeadAfter - config.PingEvery
	c.MaxIncomingStreams = uint32(config.MaxStreams)
	begin := yamux.Server
	if client {
		begin = yamux.Client
	}
	s, err := begin(conn, c, nil)
	if err != nil {
		return nil, fmt.Errorf("begin yamux: %w", err)
	}
	session := &yamuxSession{Session: s, conn: conn, binding: binding, accept: make(chan *yamux.Stream), done: make(chan struct{})}
	go session.acceptLoop()
	return session, nil
}

func (s *yamuxSession) acceptLoop() {
	for {
		stream, err := s.AcceptStream()
		if err != nil {
			s.mu.Lock()
			s.err = fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
			s.mu.Unlock()
			close(s.done)
			return
		}
		select {
		case s.accept <- stream:
		case <-s.CloseChan():
		}
	}
}

func (s *yamuxSession) Open(ctx context.Context) (transport.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stream, err := s.OpenStream(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
	}
	return &yamuxStream{Stream: stream, session: s}, nil
}

func (s *yamuxSession) Accept(ctx context.Context) (transport.Stream, error) {
	select {
	case stream := <-s.accept:
		return &yamuxStream{Stream: stream, session: s}, nil
	case <-s.CloseChan():
		return nil, transport.ErrSessionClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *yamuxSession) Ping(ctx context.Context) (time.Duration, error) {
	type pong struct {
		rtt time.Duration
		err error
	}
	c := make(chan pong, 1)
	go func() {
		rtt, err := s.Session.Ping()
		c <- pong{rtt, err}
	}()
	select {
	case p := <-c:
		if p.err != nil {
			return 0, fmt.Errorf("%w: %w", transport.ErrSessionClosed, p.err)
		}
		return p.rtt, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *yamuxSession) Binding() []byte       { return append([]byte(nil), s.binding...) }
func (s *yamuxSession) Done() <-chan struct{} { return s.done }
func (s *yamuxSession) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
func (s *yamuxSession) Close() error {
	_ = s.Session.Close()
	<-s.done
	return nil
}

// What transport.Session and transport.Stream have beyond yamux, and benchmarks do
// not use.
func (s *yamuxSession) OnOpen(do func(transport.Stream)) { transport.AcceptEach(s, do) }
func (s *yamuxSession) Admit()                           {}
func (s *yamuxStream) ResetInOrder() error               { return s.Reset() }
func (s *yamuxStream) OnRead(do func()) (now func())     { go do(); return func() {} }
func (s *yamuxStream) OnReset(func()) (stop func())      { return func() {} } // yamux tells nobody

// yamuxStream gives yamux's streams the errors of this package.
type yamuxStream struct {
	*yamux.Stream
	session *yamuxSession
}

func (s *yamuxStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, s.explain(err)
}

func (s *yamuxStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, s.explain(err)
}

func (s *yamuxStream) explain(err error) error {
	var reset *yamux.StreamError
	var gone *yamux.GoAwayError
	switch {
	case err == nil || err == io.EOF: // a dead connection wraps io.EOF
		return err
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case s.session.IsClosed() || errors.As(err, &gone):
		return fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
	case errors.As(err, &reset), errors.Is(err, yamux.ErrStreamReset):
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	}
	return err
}
