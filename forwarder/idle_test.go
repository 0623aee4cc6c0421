package forwarder_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/test/pace"
)

// Connections that nothing flows through cost little memory, in all three
// processes together. Both TCP ends of the test itself are in the figure.
func TestIdleConnectionsAreCheap(t *testing.T) {
	if pace.Race {
		t.Log("the race detector has memory of its own; nothing is measured")
		return
	}
	w := newWorld(t, "tls")
	_, _, m := w.pair(parking(t))
	const n = 500
	open := func(n int) {
		for range n {
			if err := roundTrip(connect(t, m.address), "hello"); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(50)
	before := used(t)
	open(n)
	after := used(t)
	heap, stacks := int64(after.heap-before.heap)/n, int64(after.stacks-before.stacks)/n
	t.Logf("per idle connection: heap %d bytes, stacks %d bytes, goroutines %.1f",
		heap, stacks, float64(after.goroutines-before.goroutines)/n)
	if heap+stacks > 24<<10 {
		t.Errorf("an idle connection costs %d bytes, want 24 KB at most", heap+stacks)
	}
}

// An agent that only waits costs its forwarder little. Its own side is in the
// figure too.
func TestIdleSessionsAreCheap(t *testing.T) {
	if pace.Race {
		t.Log("the race detector has memory of its own; nothing is measured")
		return
	}
	w := newWorld(t, "tls")
	knock := func(n int) {
		for range n {
			c := w.client(w.user)
			h := w.knock(t)
			if r := h.hello(t, c.credential, hello(c)); r != nil {
				t.Fatal(r)
			}
		}
	}
	knock(20)
	const n = 300
	before := used(t)
	knock(n)
	after := used(t)
	heap, stacks := int64(after.heap-before.heap)/n, int64(after.stacks-before.stacks)/n
	t.Logf("per idle session, both ends: heap %d bytes, stacks %d bytes, goroutines %.1f",
		heap, stacks, float64(after.goroutines-before.goroutines)/n)
	if heap+stacks > 100<<10 {
		t.Errorf("an idle session costs %d bytes at both ends, want 100 KB at most", heap+stacks)
	}
}

// parking is a service that answers five bytes and then keeps the connection,
// without a goroutine for it.
func parking(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		var parked []net.Conn
		for {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			parked = append(parked, conn)
			b := make([]byte, 5)
			if _, err := io.ReadFull(conn, b); err == nil {
				conn.Write(b)
			}
		}
		for _, conn := range parked {
			conn.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return ln.Addr().String()
}
