package forwarder_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
)

func TestBytesFlowBothWays(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		conn := connect(t, m.address)
		for i := range 10 {
			if err := roundTrip(conn, fmt.Sprintf("line %d\n", i)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Request, FIN, and an answer of 200 KB half a second later: it arrives whole.
func TestAnswerAfterHalfCloseArrivesWhole(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		answer := make([]byte, 200<<10)
		rand.Read(answer)
		_, _, m := w.pair(serve(t, func(c *net.TCPConn) {
			request, _ := io.ReadAll(c)
			time.Sleep(500 * time.Millisecond)
			if string(request) == "the request" {
				c.Write(answer)
			}
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "the request")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestResetOfTheServiceIsAReset(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(serve(t, func(c *net.TCPConn) {
			c.Read(make([]byte, 1))
			c.SetLinger(0)
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "x")
		if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
			t.Fatalf("got %v, want a reset", err)
		}
	})
}

func TestResetOfTheClientReachesTheService(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		ended := make(chan error, 1)
		_, _, m := w.pair(serve(t, func(c *net.TCPConn) {
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}))
		conn := connect(t, m.address)
		io.WriteString(conn, "x")
		conn.SetLinger(0)
		conn.Close()
		select {
		case err := <-ended:
			if !isReset(err) {
				t.Fatalf("the service saw %v, want a reset", err)
			}
		case <-time.After(pace.Guard):
			t.Fatal("the service was not told")
		}
	})
}

// Eight streams, random bytes each way at once, equal by hash.
func TestManyStreamsCarryWhatWasSent(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		size := int64(16 << 20) // 64 MiB go through the real programs in test/flow
		if pace.Race || w.mode == "memory" {
			size = 4 << 20
		}
		if testing.Short() {
			size = 1 << 20
		}
		sums := make(chan [sha256.Size]byte, 32)
		_, _, m := w.pair(serve(t, func(c *net.TCPConn) { exchange(t, c, size, sums) }))
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
		for sum, n := range seen {
			if n%2 != 0 || n == 0 {
				t.Errorf("hash %x was seen %d times, want once sent and once received", sum[:4], n)
			}
		}
		if len(seen) != 16 {
			t.Errorf("%d different hashes, want 16: one for each stream and direction", len(seen))
		}
		eventually(t, "the counters show it", func() bool {
			for _, traffic := range w.current().Traffic() {
				if traffic.MappingID == m.id {
					return traffic.ToTarget == 8*size && traffic.ToSource == 8*size && traffic.Streams == 0
				}
			}
			return false
		})
	})
}

// random gives bytes of its own, faster than the kernel does.
func random() io.Reader {
	var seed [32]byte
	rand.Read(seed[:])
	return mathrand.NewChaCha8(seed)
}

// exchange sends size random bytes and reads until the end, at the same time, and
// gives the hashes of both.
func exchange(t *testing.T, c *net.TCPConn, size int64, sums chan<- [sha256.Size]byte) {
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	var both sync.WaitGroup
	both.Go(func() {
		hash := sha256.New()
		if n, err := io.Copy(io.MultiWriter(c, hash), io.LimitReader(random(), size)); n != size || err != nil {
			t.Errorf("sent %d: %v", n, err)
		}
		c.CloseWrite()
		sums <- [sha256.Size]byte(hash.Sum(nil))
	})
	hash := sha256.New()
	if n, err := io.Copy(hash, c); n != size || err != nil {
		t.Errorf("received %d: %v", n, err)
	}
	both.Wait()
	sums <- [sha256.Size]byte(hash.Sum(nil))
}

func TestSlowReaderDoesNotBlockOthers(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(serve(t, func(c *net.TCPConn) {
			kind := make([]byte, 1)
			c.Read(kind)
			if kind[0] == 'f' { // a flood
				io.Copy(c, neverending{})
				return
			}
			io.Copy(c, c)
		}))
		for range 4 {
			io.WriteString(connect(t, m.address), "f") // and never reads
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
	})
}

type neverending struct{}

func (neverending) Read(b []byte) (int, error) { return len(b), nil }

func TestRefusedDialIsAReset(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(freeAddress(t))
		if _, err := heard(m.address); !isReset(err) {
			t.Fatalf("got %v, want a reset", err)
		}
		if n := w.refused("dial_refused"); n != 1 {
			t.Errorf("counted %v refusals, want 1", n)
		}
	})
}

func TestTargetOfflineIsAReset(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		w.agent(source)
		m := w.mapping(source, target, echo(t))
		w.listening(m)
		if _, err := heard(m.address); !isReset(err) {
			t.Fatalf("got %v, want a reset", err)
		}
		w.agent(target)
		if err := roundTrip(connect(t, m.address), "now"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestConnectionsPerMappingAreLimited(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		user := w.newUser(domain.Limits{MaxConnectionsPerMapping: ptr(int64(2))})
		source, target := w.client(user), w.client(user)
		w.agent(target)
		w.agent(source)
		m := w.mapping(source, target, echo(t))
		w.listening(m)
		first, second := connect(t, m.address), connect(t, m.address)
		if err := errors.Join(roundTrip(first, "a"), roundTrip(second, "b")); err != nil {
			t.Fatal(err)
		}
		if _, err := heard(m.address); !isReset(err) {
			t.Fatalf("the third connection got %v, want a reset", err)
		}
		if n := w.refused("quota_connections"); n != 1 {
			t.Errorf("counted %v refusals, want 1", n)
		}
		first.Close()
		eventually(t, "a connection is free", func() bool { return works(m.address) })

		w.plane.do(t, domain.SetQuota{ID: user, Limits: domain.Limits{MaxConnectionsPerMapping: ptr(int64(10))}})
		eventually(t, "the raised limit counts", func() bool {
			conns := []net.Conn{dialled(t, m.address), dialled(t, m.address), dialled(t, m.address)}
			for _, c := range conns {
				if c == nil || roundTrip(c, "d") != nil {
					return false
				}
				defer c.Close()
			}
			return true
		})
	})
}
