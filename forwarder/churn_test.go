package forwarder_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// usage is what the process holds.
type usage struct {
	goroutines  int
	descriptors int
	heap        uint64
	stacks      uint64
}

func used(t testing.TB) usage {
	t.Helper()
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return usage{runtime.NumGoroutine(), len(open), m.HeapAlloc, m.StackInuse}
}

// A thousand connections, ended in every way there is, leave nothing behind.
func TestChurnLeavesNothingBehind(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		n := 1000
		if testing.Short() || pace.Race {
			n = 200
		}
		churn := func(n int) {
			var running sync.WaitGroup
			slots := make(chan struct{}, 16)
			for i := range n {
				slots <- struct{}{}
				running.Go(func() {
					defer func() { <-slots }()
					if err := once(m.address, i); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			running.Wait()
		}
		churn(64) // pools and stacks have their size after it
		idle := func() bool {
			for _, traffic := range w.current().Traffic() {
				if traffic.Streams != 0 {
					return false
				}
			}
			return w.metric("tunnox_streams_active") == 0
		}
		eventually(t, "all streams end", idle)
		before := used(t)
		churn(n)
		eventually(t, "all streams end", idle)
		var after usage
		eventually(t, "goroutines and descriptors are back", func() bool {
			after = used(t)
			return after.goroutines <= before.goroutines+2 && after.descriptors <= before.descriptors+2
		})
		if grown := int64(after.heap) - int64(before.heap); grown > 2<<20 {
			t.Errorf("the heap grew by %d KB", grown>>10)
		}
		t.Logf("goroutines %d -> %d, descriptors %d -> %d, heap %d -> %d KB", before.goroutines, after.goroutines,
			before.descriptors, after.descriptors, before.heap>>10, after.heap>>10)
	})
}

// once makes one connection and ends it in one of several ways.
func once(address string, way int) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	conn := c.(*net.TCPConn)
	conn.SetDeadline(time.Now().Add(pace.Guard))
	switch way % 4 {
	case 0: // the whole way
		if err := roundTrip(conn, "ping"); err != nil {
			return err
		}
		conn.CloseWrite()
		_, err := io.Copy(io.Discard, conn)
		return err
	case 1: // closed with a reset in the middle
		if err := roundTrip(conn, "ping"); err != nil {
			return err
		}
		return conn.SetLinger(0)
	case 2: // closed before anything was answered
		_, err := conn.Write([]byte("ping"))
		return err
	}
	return nil // closed at once
}

// A network that swallows packets without a word: both sides notice, the agent
// is back, and the forwarder has one session of it.
func TestBlackHoleIsNoticed(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, "tls")
	var hole blackHole
	c := w.client(w.user)
	w.agent(c, func(cfg *agent.Config) {
		cfg.Dial = func(ctx context.Context, _ string) (transport.Session, error) {
			return transport.DialTLS(ctx, w.current().listener.Addr().String(), transport.DialConfig{
				Pins: []transport.Pin{pin(t)}, Dial: hole.dial})
		}
	})
	m := w.mapping(c, c, echo(t))
	w.listening(m)
	conn := connect(t, m.address)
	if err := roundTrip(conn, "x"); err != nil {
		t.Fatal(err)
	}
	before := w.session(c)
	hole.open.Store(true)
	watch := pace.Measure(t)
	began := time.Now()
	conn.SetReadDeadline(time.Now().Add(pace.Guard))
	if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("the live stream got %v, want a reset", err)
	}
	if d := time.Since(began); d > watch.Allow(16*time.Second) {
		t.Errorf("that took %v, want 15 s", d)
	}
	hole.open.Store(false)
	eventually(t, "the agent is back", func() bool {
		now, ok := w.presences.of(c.id)
		return ok && now.Session != before.Session && works(m.address)
	})
	if n := w.metric("tunnox_clients_online"); n != 1 {
		t.Errorf("%v clients are online, want 1", n)
	}
}

// blackHole dials connections that, while it is open, neither deliver nor fail.
type blackHole struct{ open atomic.Bool }

func (h *blackHole) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.open.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &swallowed{Conn: conn, hole: h, closed: make(chan struct{})}, nil
}

type swallowed struct {
	net.Conn
	hole   *blackHole
	closed chan struct{}
	once   sync.Once
	lost   atomic.Bool
}

func (c *swallowed) swallow() bool {
	if c.hole.open.Load() {
		c.lost.Store(true) // for good: what was lost in the middle is missing
	}
	return c.lost.Load()
}

func (c *swallowed) Write(b []byte) (int, error) {
	if c.swallow() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *swallowed) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if !c.swallow() {
			return n, err
		}
		if err != nil {
			<-c.closed
			return 0, net.ErrClosed
		}
	}
}

// Close leaves the connection open for the other side if it was swallowed: no
// FIN gets through either.
func (c *swallowed) Close() error {
	c.once.Do(func() { close(c.closed) })
	if c.lost.Load() {
		time.AfterFunc(20*time.Second, func() { c.Conn.Close() })
		c.Conn.SetReadDeadline(time.Unix(1, 0))
		return nil
	}
	return c.Conn.Close()
}
