package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestHop prints what a bridge adds to a round trip, how fast one stream over it is and
// what it costs, together with the same agents' path over one forwarder in the same
// run. Its limits only find broken code: the machine does other work too.
func TestHop(t *testing.T) {
	c := start(t, 2)
	a, b := c.Forwarders[0], c.Forwarders[1]
	e := join(t, c.Control.API, a, b)
	service := programs.Listen(t, serveHop).Port
	across := e.mapping(t, service)
	third := *e
	third.target = e.CreateClient(t, e.user.ID, "third")
	third.targetAgent = a.Join(t, e.API, third.target)
	same := third.mapping(t, service)

	var here, there []time.Duration // in turn, since the machine has other work too
	for range 3 {
		here, there = append(here, roundTrip(t, same)), append(there, roundTrip(t, across))
	}
	added := slices.Min(there) - slices.Min(here)
	t.Logf("p50 of a round trip: same node %v, over a bridge %v, added %v", slices.Min(here), slices.Min(there), added)
	if added > 20*time.Millisecond {
		t.Errorf("a bridge adds %v to a round trip", added)
	}

	nodes := func() (used time.Duration) {
		for _, f := range c.Forwarders {
			cpu, err := f.CPU()
			if err != nil {
				t.Fatal(err)
			}
			used += cpu
		}
		return used
	}
	for _, way := range []struct {
		name string
		port int
	}{{"same node", same}, {"over a bridge", across}} {
		for _, ask := range []byte{hopSink, hopSource} {
			before, began := nodes(), time.Now()
			n := hopBytes(t, way.port, ask)
			took, used := time.Since(began), nodes()-before
			gb := float64(n) / 1e9
			t.Logf("one stream %s, %s: %.2f GB/s, forwarders use %.2f CPU-seconds per GB", way.name,
				map[byte]string{hopSink: "there", hopSource: "back"}[ask], gb/took.Seconds(), used.Seconds()/gb)
			if rate := gb / took.Seconds(); rate < 0.01 && !pace.Race {
				t.Errorf("one stream %s carries %.3f GB/s", way.name, rate)
			}
		}
	}
}

// The first byte of a connection tells serveHop what to do.
const (
	hopEcho   = 'E' // send back what comes; also of the connections that only look whether it works
	hopSink   = 'S' // read to the end, then answer with a byte
	hopSource = 'D' // send bytes, then end
)

// hopSize is how much a stream carries; less when every access is watched.
var hopSize = map[bool]int64{false: 128 << 20, true: 8 << 20}[pace.Race]

func serveHop(c *net.TCPConn) {
	what := make([]byte, 1)
	if _, err := io.ReadFull(c, what); err != nil {
		return
	}
	// The caller checks how a connection ends; here it only ends.
	switch what[0] {
	case hopSink:
		_, _ = io.Copy(io.Discard, onlyReader{c})
		_, _ = c.Write(what)
	case hopSource:
		_, _ = io.CopyBuffer(onlyWriter{c}, io.LimitReader(zeros{}, hopSize), make([]byte, 128<<10))
		_ = c.CloseWrite()
	default:
		_, _ = c.Write(what)
		programs.Echo(c)
	}
}

// Plain reads and writes, without system calls that move bytes inside the kernel.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
	zeros      struct{}
)

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// roundTrip gives the median of a small message's way there and back.
func roundTrip(t *testing.T, port int) time.Duration {
	t.Helper()
	conn := programs.Dial(t, port)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	var took []time.Duration
	word := make([]byte, 64)
	word[0] = hopEcho
	for range 1000 {
		began := time.Now()
		if _, err := conn.Write(word); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, word); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// hopBytes carries hopSize bytes there or back over one connection.
func hopBytes(t *testing.T, port int, ask byte) (n int64) {
	t.Helper()
	conn := programs.Dial(t, port)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, err := conn.Write([]byte{ask})
	if ask == hopSource && err == nil {
		n, err = io.Copy(io.Discard, onlyReader{conn})
	} else if err == nil {
		n, err = io.CopyBuffer(onlyWriter{conn}, io.LimitReader(zeros{}, hopSize), make([]byte, 128<<10))
		err2 := conn.CloseWrite()
		_, err3 := io.ReadFull(conn, make([]byte, 1))
		err = errors.Join(err, err2, err3)
	}
	if err == nil && n != hopSize {
		err = fmt.Errorf("%d bytes instead of %d", n, hopSize)
	}
	if err != nil {
		t.Fatalf("port %d, %c: %v", port, ask, err)
	}
	return n
}
