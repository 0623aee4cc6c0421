package forwarder_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/test/pace"
)

func TestBytesCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(echo(t))
		conn := connect(t, m.address)
		for i := range 10 {
			if err := roundTrip(conn, fmt.Sprintf("line %d\n", i)); err != nil {
				t.Fatal(err)
			}
		}
		a, b := c.member("node-00a"), c.member("node-00b")
		if out, in := number(t, a.metrics, "tunnox_bridge_opens_total", "out"), number(t, b.metrics, "tunnox_bridge_opens_total", "in"); out != 1 || in != 1 {
			t.Errorf("%v streams went out and %v came in, want 1 and 1", out, in)
		}
		// Connection and bytes count at one node, the source's.
		traffic := func(m *member, id int64) forwarder.Traffic {
			for _, x := range m.Traffic() {
				if x.MappingID == id {
					return x
				}
			}
			t.Fatalf("%s does not know mapping %d", m.id, id)
			return forwarder.Traffic{}
		}
		eventually(t, "one stream and 70 bytes each way at the source's forwarder", func() bool {
			x := traffic(a, m.id) // bytes are counted right after they were handed on
			return x.Streams == 1 && x.ToTarget == 70 && x.ToSource == 70
		})
		if x := traffic(b, m.id); x.Streams != 0 || x.ToTarget != 0 || x.ToSource != 0 {
			t.Errorf("at the target's forwarder: %+v", x)
		}
		conn.Close()
	})
}

func TestHalfCloseCrossesTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			request, _ := io.ReadAll(conn)
			conn.Write(append(request, make([]byte, 200_000)...))
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "the request")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || len(got) != 200_011 || string(got[:11]) != "the request" {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestResetsCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		seen := make(chan error, 1)
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			kind := make([]byte, 1)
			conn.Read(kind)
			if kind[0] == 'r' {
				conn.SetLinger(0)
				return
			}
			conn.Write(kind)
			_, err := io.Copy(io.Discard, conn)
			seen <- err
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "r")
		if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("a reset of the service is %v", err)
		}
		conn = connect(t, m.address)
		if err := roundTrip(conn, "w"); err != nil {
			t.Fatal(err)
		}
		conn.SetLinger(0)
		conn.Close()
		select {
		case err := <-seen:
			if !isReset(err) {
				t.Errorf("a reset of the client is %v", err)
			}
		case <-time.After(pace.Guard):
			t.Error("the service was not told of a reset")
		}
		// A refusal of the target agent's comes back as it was said.
		refused := c.mapping(client{id: c.sourceOf(m)}, client{id: c.targetOf(m)}, freeAddress(t))
		c.listening(refused)
		if _, err := heard(refused.address); !isReset(err) {
			t.Errorf("a refused dial is %v", err)
		}
		if n := number(t, c.member("node-00a").metrics, "tunnox_opens_refused_total", "dial_refused"); n != 1 {
			t.Errorf("counted %v refused dials", n)
		}
	})
}

func TestSlowReaderBlocksNobodyAcrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) {
			kind := make([]byte, 1)
			conn.Read(kind)
			if kind[0] == 'f' {
				io.Copy(conn, neverending{})
				return
			}
			io.Copy(conn, conn)
		}))
		var slow []net.Conn
		for range 4 {
			conn := connect(t, m.address)
			io.WriteString(conn, "f") // and never reads
			slow = append(slow, conn)
		}
		conn := connect(t, m.address)
		io.WriteString(conn, "e")
		watch := pace.Measure(t)
		for range 200 {
			began := time.Now()
			if err := roundTrip(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > watch.Allow(2*time.Second) {
				t.Fatalf("a round trip took %v beside readers that do not read", d)
			}
		}
		for _, s := range append(slow, conn) {
			s.Close()
		}
	})
}

// Eight streams at once, random bytes both ways: they arrive as they were sent.
func TestManyStreamsCrossTheBridge(t *testing.T) {
	overCluster(t, func(t *testing.T, c *cluster) {
		size := int64(16 << 20) // 64 MiB go through the real programs in test/flow
		if pace.Race || c.mode == "memory" {
			size = 4 << 20
		}
		sums := make(chan [sha256.Size]byte, 32)
		_, _, m := c.apart(serve(t, func(conn *net.TCPConn) { exchange(t, conn, size, sums) }))
		var running sync.WaitGroup
		for range 8 {
			conn := connect(t, m.address)
			running.Go(func() { exchange(t, conn, size, sums) })
		}
		running.Wait()
		seen := map[[sha256.Size]byte]int{}
		for range 32 {
			seen[<-sums]++
		}
		if len(seen) != 16 {
			t.Errorf("%d different hashes, want 16: one for each stream and direction", len(seen))
		}
	})
}
