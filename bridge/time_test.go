package bridge

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// pipeListener hands out in-memory connections, for tests in virtual time.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Default settings over many hours: streams live as long as both ends, and idle
// connections are closed after 5 minutes, except the last one.
func TestADayOfIdleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		server, err := NewServer(ServerConfig{Trust: ca.trust(t, "node-002"), Handle: echo})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- server.Serve(ln) }()
		pool, err := NewPool(PoolConfig{Trust: ca.trust(t, "node-001"), StreamsPerConnection: 1, Dial: ln.dial})
		if err != nil {
			t.Fatal(err)
		}
		to := Peer{"node-002", "pipe"}
		var all []transport.Stream
		for range 3 {
			s, err := pool.Open(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		time.Sleep(50 * time.Minute) // 10 times the longest time limit; certificates last an hour
		for _, s := range all {
			if err := roundTrip(s, "alive"); err != nil {
				t.Error(err)
			}
		}
		if s := pool.Stats()[0]; s.Connections != 3 || s.Active != 3 {
			t.Errorf("%+v", s)
		}
		for _, s := range all {
			_ = s.Close()
		}
		time.Sleep(5*time.Minute - time.Second)
		if s := pool.Stats()[0]; s.Connections != 3 || s.Idle != 3 {
			t.Errorf("before the idle time is over: %+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := pool.Stats()[0]; s.Connections != 1 || s.Idle != 1 {
			t.Errorf("after it: %+v", s)
		}
		_ = pool.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
