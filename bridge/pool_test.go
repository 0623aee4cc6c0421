package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

func echo(_ context.Context, _ Identity, s transport.Stream) {
	_, _ = io.Copy(s, s)
}

// roundTrip sends a text on a stream and receives it back.
func roundTrip(s transport.Stream, text string) error {
	if _, err := s.Write([]byte(text)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("%q came back as %q", text, got)
	}
	return nil
}

func TestThreeNodesNeedSixConnectionsFor600Streams(t *testing.T) {
	ca := newAuthority(t)
	nodes := make([]*node, 3)
	for i := range nodes {
		nodes[i] = startNode(t, ca, fmt.Sprintf("node-%03d", i+1), echo, nil)
	}
	var mu sync.Mutex
	var all []transport.Stream
	var running sync.WaitGroup
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			for i := range 100 {
				running.Go(func() {
					s, err := from.pool.Open(within(t, 20*time.Second), to.Peer)
					if err != nil {
						t.Error(err)
						return
					}
					if err := roundTrip(s, fmt.Sprintf("%s to %s, %d", from.Node, to.Node, i)); err != nil {
						t.Error(err)
					}
					mu.Lock()
					all = append(all, s)
					mu.Unlock()
				})
			}
		}
	}
	running.Wait()
	var opened, connections, active int
	for _, n := range nodes {
		opened += int(n.ln.opened.Load())
		for _, s := range n.pool.Stats() {
			connections += s.Connections
			active += s.Active
			if s.Utilization != 1 {
				t.Errorf("%s to %s is used at %v", n.Node, s.Node, s.Utilization)
			}
		}
		for _, s := range n.server.Stats() {
			if s.Connections != 1 || s.Active != 100 {
				t.Errorf("%s takes from %+v", n.Node, s)
			}
		}
	}
	if opened != 6 || connections != 6 || active != 600 {
		t.Errorf("%d connections were accepted, %d are in pools, with %d streams", opened, connections, active)
	}
	// One more stream to a full peer.
	s, err := nodes[0].pool.Open(within(t, 10*time.Second), nodes[1].Peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(s, "101"); err != nil {
		t.Error(err)
	}
	if got := nodes[0].stats("node-002"); got.Connections != 2 || got.Active != 101 {
		t.Errorf("with 101 streams: %+v", got)
	}
	for _, s := range append(all, s) {
		_ = s.Close()
	}
	for _, n := range nodes {
		n.unused(t)
	}
}

func TestIdleConnectionsCloseDownToTheMinimum(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.StreamsPerConnection, p.MinConnections, p.IdleClose = 2, 2, 200*time.Millisecond
	})
	var all []transport.Stream
	for range 9 {
		s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if got := from.stats("node-002"); got.Connections != 5 {
		t.Fatalf("%+v", got)
	}
	for _, s := range all[1:] {
		_ = s.Close()
	}
	eventually(t, "the pool is back to its minimum", func() bool {
		got := from.stats("node-002")
		return got.Connections == 2 && got.Active == 1 && got.Idle == 1
	})
	eventually(t, "the others are closed", func() bool { return to.ln.open.Load() == 2 })
	if err := roundTrip(all[0], "the one in use was left alone"); err != nil {
		t.Error(err)
	}
	_ = all[0].Close()
	from.unused(t)
	if got := from.stats("node-002"); got.Connections != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAtTheCapOpensWaitForTheirDeadlineOrAPlace(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.StreamsPerConnection, p.MaxConnections = 2, 2
	})
	var all []transport.Stream
	for range 4 {
		s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	begin := time.Now()
	_, err := from.pool.Open(timeout(t, 100*time.Millisecond), to.Peer)
	if !errors.Is(err, ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the cap: %v", err)
	}
	if took := time.Since(begin); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("at the cap after %v", took)
	}
	got := make(chan error, 1)
	go func() {
		s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		if err == nil {
			err = roundTrip(s, "a place became free")
			_ = s.Close()
		}
		got <- err
	}()
	eventually(t, "one waits", func() bool { return from.stats("node-002").Waiting == 1 })
	_ = all[0].Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
	for _, s := range all {
		_ = s.Close()
	}
	from.unused(t)
	if n := to.ln.opened.Load(); n != 2 {
		t.Errorf("%d connections were made", n)
	}
}

func TestUnreachablePeers(t *testing.T) {
	ca := newAuthority(t)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.DialTimeout, p.IdleClose = 300*time.Millisecond, time.Second
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, peer := range map[string]Peer{
		"refused": {"node-002", closed.Addr().String()},
		"silent":  {"node-003", silent.Addr().String()},
	} {
		var running sync.WaitGroup
		begin := time.Now()
		for range 50 {
			running.Go(func() {
				if _, err := from.pool.Open(within(t, 10*time.Second), peer); !errors.Is(err, ErrUnreachable) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		running.Wait()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("%s: known after %v", name, took)
		}
		if got := from.stats(peer.Node); got.DialsFailed == 0 || got.DialsFailed > 5 || got.Active != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	eventually(t, "the peers are forgotten", func() bool { return len(from.pool.Stats()) == 0 })
}

func TestADeadPeerFailsItsStreamsAndIsFoundAgain(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, nil)
	const streams = 150
	failed := make(chan error, streams)
	for i := range streams {
		s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(s, "alive"); err != nil {
			t.Fatal(err)
		}
		go func() {
			var err error
			if i%2 == 0 {
				_, err = s.Read(make([]byte, 1))
			} else {
				for err == nil {
					_, err = s.Write(make([]byte, 1000))
				}
			}
			_ = s.Close()
			failed <- err
		}()
	}
	begin := time.Now()
	to.ln.cut()
	for range streams {
		if err := <-failed; !errors.Is(err, transport.ErrSessionClosed) {
			t.Errorf("a stream ended with %v", err)
		}
	}
	took := time.Since(begin)
	if took > 2*time.Second {
		t.Errorf("all knew after %v", took)
	}
	t.Logf("all knew after %v", took)
	from.unused(t)
	eventually(t, "the pool connects by itself", func() bool { return from.stats("node-002").Connections == 1 })
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(s, "again"); err != nil {
		t.Error(err)
	}
	_ = s.Close()
}

// tap is a dialer whose connections can be frozen, as if the line were cut silently.
type tap struct{ shut atomic.Bool }

type tappedConn struct {
	net.Conn
	tap *tap
}

func (p *tap) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &tappedConn{conn, p}, nil
}

func (c *tappedConn) Write(b []byte) (int, error) {
	if c.tap.shut.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func TestUnhealthyConnectionsAreReplaced(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	line := new(tap)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.HealthEvery, p.DialTimeout, p.Dial = 50*time.Millisecond, 200*time.Millisecond, line.dial
	})
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(s, "well"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // several checks: a healthy connection stays
	if err := roundTrip(s, "still well"); err != nil {
		t.Fatal(err)
	}
	line.shut.Store(true)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, transport.ErrSessionClosed) {
		t.Errorf("the stream ended with %v", err)
	}
	_ = s.Close()
	line.shut.Store(false)
	eventually(t, "another took its place", func() bool { return from.stats("node-002").Connections == 1 })
	if s, err = from.pool.Open(within(t, 10*time.Second), to.Peer); err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(s, "well again"); err != nil {
		t.Error(err)
	}
	_ = s.Close()
}

// Whatever fails, nothing stays counted; startNode checks this at the end too.
func TestChurnLeavesNothingInUse(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", func(_ context.Context, _ Identity, s transport.Stream) {
		switch rand.IntN(5) {
		case 0:
			_ = s.Reset()
		case 1: // ends silently
		case 2:
			panic("a bug in a handler")
		default:
			_, _ = io.Copy(s, s)
		}
	}, nil)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.StreamsPerConnection, p.MaxConnections, p.IdleClose, p.HealthEvery = 3, 4, 5*time.Millisecond, 5*time.Millisecond
		p.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if rand.IntN(4) == 0 {
				return nil, errors.New("no luck")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				to.ln.cut()
			}
		}
	})
	var worked atomic.Int64
	var running sync.WaitGroup
	for range 20 {
		running.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(50))*time.Millisecond)
				s, err := from.pool.Open(ctx, to.Peer)
				cancel()
				if err != nil {
					continue
				}
				_ = s.SetDeadline(time.Now().Add(pace.Guard))
				if roundTrip(s, "something") == nil {
					worked.Add(1)
				}
				switch rand.IntN(3) {
				case 0:
					_ = s.Reset()
				case 1:
					_, _ = s.Write(make([]byte, 100<<10))
				}
				_ = s.Close()
			}
		})
	}
	running.Wait()
	close(stop)
	cutting.Wait()
	if worked.Load() == 0 {
		t.Error("nothing ever worked")
	}
	t.Logf("%d of 1000 worked", worked.Load())
	from.unused(t)
	eventually(t, "retired connections are gone", func() bool { return from.stats("node-002").Retired == 0 })
	eventually(t, "the server has no streams", func() bool {
		for _, s := range to.server.Stats() {
			if s.Active != 0 {
				return false
			}
		}
		return true
	})
}

func TestForgottenAndMovedPeers(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, nil)
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	from.pool.Forget("node-002")
	from.pool.Forget("node-009")
	if err := roundTrip(s, "it may end in peace"); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	eventually(t, "the peer is forgotten", func() bool { return len(from.pool.Stats()) == 0 && to.ln.open.Load() == 0 })

	// The same node starts again at another address.
	if s, err = from.pool.Open(within(t, 10*time.Second), to.Peer); err != nil {
		t.Fatal(err)
	}
	moved := startNode(t, ca, "node-002", echo, nil)
	other, err := from.pool.Open(within(t, 10*time.Second), moved.Peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(roundTrip(s, "to the old"), roundTrip(other, "to the new")); err != nil {
		t.Error(err)
	}
	if got := from.stats("node-002"); got.Connections != 1 || got.Retired != 1 || moved.ln.open.Load() != 1 {
		t.Errorf("%+v", got)
	}
	_ = s.Close()
	eventually(t, "the old connection is gone", func() bool { return to.ln.open.Load() == 0 })
	_ = other.Close()
}

func TestAClosedPoolSaysSo(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, func(p *PoolConfig, _ *ServerConfig) {
		p.StreamsPerConnection, p.MaxConnections = 1, 1
	})
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
		waited <- err
	}()
	eventually(t, "one waits", func() bool { return from.stats("node-002").Waiting == 1 })
	_ = from.pool.Close()
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("the one that waited: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("the stream lives on")
	}
	if _, err := from.pool.Open(timeout(t, time.Second), to.Peer); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	_ = from.pool.Close()
}
