package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// bothWays runs a test with the opener first and with the acceptor first. A gRPC server
// can do less than a gRPC client, and a stream must hide that.
func bothWays(t *testing.T, test func(t *testing.T, two *twoNodes, open func() (a, b transport.Stream))) {
	for name, turn := range map[string]bool{"opener": false, "acceptor": true} {
		t.Run(name, func(t *testing.T) {
			two := startTwo(t, nil)
			test(t, two, func() (a, b transport.Stream) {
				p := two.open(t)
				if turn {
					return p.acceptor, p.opener
				}
				return p.opener, p.acceptor
			})
		})
	}
}

func TestStreamIsAConn(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *twoNodes, open func() (a, b transport.Stream)) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			a, b := open()
			return a, b, func() { _ = a.Close(); _ = b.Close() }, nil
		})
	})
}

// noise gives n bytes without repetition.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestLateAnswerAfterHalfCloseArrivesWhole(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *twoNodes, open func() (a, b transport.Stream)) {
		a, b := open()
		answer := noise(200 << 10)
		go func() {
			if got, err := io.ReadAll(b); err != nil || string(got) != "request" {
				t.Errorf("%q, %v", got, err)
			}
			time.Sleep(500 * time.Millisecond) // the service takes its time
			if _, err := b.Write(answer); err != nil {
				t.Error(err)
			}
			_ = b.Close()
		}()
		if _, err := a.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after CloseWrite: %v", err)
		}
		if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
}

func TestCloseLetsThePeerReadWhatWasWritten(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *twoNodes, open func() (a, b transport.Stream)) {
		a, b := open()
		sent := noise(300 << 10) // less than the window, more than gRPC holds
		if _, err := a.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		_ = a.Close()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read after Close: %v", err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if _, err := b.Write([]byte("nobody reads this")); !errors.Is(err, transport.ErrReset) {
			t.Errorf("a write to who has closed: %v", err)
		}
	})
}

func TestReset(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *twoNodes, open func() (a, b transport.Stream)) {
		t.Run("while both wait", func(t *testing.T) {
			a, b := open()
			failed := make(chan error, 2)
			for _, s := range []transport.Stream{a, b} {
				go func() {
					_, err := s.Read(make([]byte, 1))
					failed <- err
				}()
			}
			begin := time.Now()
			_ = a.Reset()
			for range 2 {
				if err := <-failed; !errors.Is(err, transport.ErrReset) {
					t.Errorf("read: %v", err)
				}
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %v", took)
			}
			if _, err := b.Write([]byte("x")); !errors.Is(err, transport.ErrReset) {
				t.Errorf("write: %v", err)
			}
			if err := b.CloseWrite(); !errors.Is(err, transport.ErrReset) {
				t.Errorf("close of the write side: %v", err)
			}
		})
		// Bytes that the peer has not read must not hold the reset back.
		t.Run("past a full window", func(t *testing.T) {
			a, b := open()
			if n, err := a.Write(make([]byte, window)); err != nil || n != window {
				t.Fatalf("%d written, %v", n, err)
			}
			_ = a.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || n != 0 {
				t.Fatalf("%d written past the window, %v", n, err)
			}
			_ = a.Reset()
			eventually(t, "the peer's writes fail", func() bool {
				_, err := b.Write([]byte("x"))
				return errors.Is(err, transport.ErrReset)
			})
			if n, err := b.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
				t.Errorf("read: %d, %v", n, err)
			}
		})
		t.Run("after a half-close", func(t *testing.T) {
			a, b := open()
			_ = a.CloseWrite()
			if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatalf("got the error %v, want %v", err, io.EOF)
			}
			_ = a.Reset()
			eventually(t, "the peer's writes fail", func() bool {
				_, err := b.Write([]byte("x"))
				return errors.Is(err, transport.ErrReset)
			})
		})
	})
}

func TestCloseWakesBlockedCalls(t *testing.T) {
	bothWays(t, func(t *testing.T, _ *twoNodes, open func() (a, b transport.Stream)) {
		a, _ := open()
		failed := make(chan error, 2)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, 2*window))
			failed <- err
		}()
		time.Sleep(50 * time.Millisecond) // both are in their calls
		begin := time.Now()
		_ = a.Close()
		for range 2 {
			if err := <-failed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got the error %v, want %v", err, net.ErrClosed)
			}
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestManyBytesArriveUnchanged(t *testing.T) {
	const streams, size = 8, 64 << 20
	two := startTwo(t, nil)
	block := noise(1_000_003) // not a multiple of any buffer's size
	var running sync.WaitGroup
	for i := range streams {
		p := two.open(t)
		from, to := p.opener, p.acceptor
		if i%2 == 1 {
			from, to = to, from
		}
		running.Go(func() {
			// Writes of all sizes up to more than a frame, at every place in a frame.
			sizes := rand.New(rand.NewPCG(uint64(i), 0))
			for at := 0; at < size; {
				part := block[at%len(block):]
				part = part[:min(len(part), size-at, 1+sizes.IntN(100<<10))]
				if _, err := from.Write(part); err != nil {
					t.Error(err)
					break
				}
				at += len(part)
			}
			_ = from.CloseWrite()
		})
		running.Go(func() {
			at, buf := 0, make([]byte, 64<<10)
			for {
				n, err := to.Read(buf)
				for got := buf[:n]; len(got) > 0; {
					want := block[at%len(block):]
					want = want[:min(len(want), len(got))]
					if !bytes.Equal(got[:len(want)], want) {
						t.Errorf("the bytes differ behind %d", at)
						_ = to.Reset()
						return
					}
					at, got = at+len(want), got[len(want):]
				}
				if err != nil {
					if !errors.Is(err, io.EOF) || at != size {
						t.Errorf("%d bytes, %v", at, err)
					}
					break
				}
			}
			_ = to.Close()
			_ = from.Close()
		})
	}
	running.Wait()
	two.a.unused(t)
	s := two.a.stats("node-002")
	if s.Sent != streams/2*size || s.Received != streams/2*size {
		t.Errorf("counted %d and %d", s.Sent, s.Received)
	}
}

// heap gives the size of the heap after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestSlowReadersCostTheirWindowAndBlockNobody(t *testing.T) {
	for name, c := range map[string]struct{ size, streams int }{"large writes": {64 << 10, 20}, "tiny writes": {32, 5}} {
		t.Run(name, func(t *testing.T) {
			size, streams := c.size, c.streams
			two := startTwo(t, nil)
			two.open(t) // makes the connection
			before := heap()
			var stuck []pair
			var written int
			for range streams {
				p := two.open(t)
				n, err := 0, error(nil)
				for buf := make([]byte, size); err == nil; n += size {
					if n+size > window { // this write cannot be sent, or not whole
						_ = p.opener.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
					}
					if n > window {
						t.Fatalf("%d bytes written that nobody reads", n)
					}
					_, err = p.opener.Write(buf)
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("got the error %v, want %v", err, os.ErrDeadlineExceeded)
				}
				written += n
				stuck = append(stuck, p)
			}
			held := heap() - before
			t.Logf("%d KiB held for each of them, %d KiB written", held/int64(streams)>>10, written/streams>>10)
			// All streams use the same pools of buffers, which are some MiB.
			if held > int64(streams)*window*3/2+4<<20 {
				t.Errorf("%d KiB held for %d streams", held>>10, streams)
			}
			// This stream is on the same connection as all of them.
			p := two.open(t)
			go func() { _, _ = p.opener.Write(noise(4 << 20)); _ = p.opener.CloseWrite() }()
			if n, err := io.Copy(io.Discard, p.acceptor); n != 4<<20 || err != nil {
				t.Fatalf("%d bytes beside the stuck, %v", n, err)
			}
			for _, p := range stuck {
				_ = p.opener.Close()
				_ = p.acceptor.Close()
			}
			_ = p.opener.Close()
			_ = p.acceptor.Close()
		})
	}
}

func TestIdleStreamsHoldNoBuffers(t *testing.T) {
	const streams = 100
	two := startTwo(t, nil)
	two.open(t)
	before, goroutines := heap(), runtime.NumGoroutine()
	all := make([]pair, streams)
	for i := range all {
		all[i] = two.open(t)
		if _, err := all[i].opener.Write(make([]byte, 128<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(all[i].acceptor, make([]byte, 128<<10)); err != nil {
			t.Fatal(err)
		}
	}
	per := (heap() - before) / streams
	t.Logf("%d bytes of heap and %.1f goroutines for an idle stream, both ends", per, float64(runtime.NumGoroutine()-goroutines)/streams)
	if per > 16<<10 {
		t.Errorf("%d bytes for an idle stream", per)
	}
}

func TestOpenerCanGiveUp(t *testing.T) {
	two := startTwo(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := two.a.pool.Open(ctx, two.b.Peer); !errors.Is(err, context.Canceled) {
		t.Fatalf("got the error %v, want %v", err, context.Canceled)
	}
	// After Open the context has no effect on the stream.
	ctx, cancel = context.WithCancel(context.Background())
	s, err := two.a.pool.Open(ctx, two.b.Peer)
	if err != nil {
		t.Fatal(err)
	}
	taken := <-two.taken
	cancel()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(taken, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	_ = taken.Close()
}

func TestAnEmptyStreamEndsCleanly(t *testing.T) {
	bothWays(t, func(t *testing.T, two *twoNodes, open func() (a, b transport.Stream)) {
		a, b := open()
		_ = a.CloseWrite()
		if got, err := io.ReadAll(b); len(got) != 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_ = b.Close()
		if got, err := io.ReadAll(a); len(got) != 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_ = a.Close()
		two.a.unused(t)
	})
}

// Every call at once, on both ends, in any order: nothing panics, hangs or is left
// over.
func TestEndsInUse(t *testing.T) {
	const rounds = 100
	two := startTwo(t, nil)
	two.open(t)
	for i := range rounds {
		p := two.open(t)
		var running sync.WaitGroup
		for _, s := range []transport.Stream{p.opener, p.acceptor} {
			for _, call := range []func(){
				func() { _, _ = io.Copy(io.Discard, s) },
				func() {
					for err := error(nil); err == nil; {
						_, err = s.Write(make([]byte, 10<<10))
					}
				},
				func() { _ = s.CloseWrite() },
				func() { _ = s.SetDeadline(time.Now().Add(pace.Guard)) },
				func() { time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond); _ = s.Close() },
				func() {
					if time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond); i%2 == 0 {
						_ = s.Reset()
					}
				},
			} {
				running.Go(call)
			}
		}
		running.Wait()
	}
	eventually(t, "one stream is left", func() bool {
		return two.a.stats("node-002").Active == 1 && two.b.server.Stats()[0].Active == 1
	})
}

// descriptors counts the open files of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The whole path of a forwarded connection: TCP, one forwarder, the bridge, the other
// forwarder, TCP. A request, FIN, and an answer of 200 KB a little later.
func TestSplicedWithTCPNothingIsLeft(t *testing.T) {
	answer := noise(200 << 10)
	service, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := service.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if got, err := io.ReadAll(conn); err != nil || string(got) != "request" {
					t.Errorf("the service got %q, %v", got, err)
				}
				time.Sleep(5 * time.Millisecond)
				_, _ = conn.Write(answer)
			})
		}
	})
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", func(_ context.Context, _ Identity, s transport.Stream) {
		conn, err := net.Dial("tcp", service.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		_, _, _ = transport.Splice(s, conn.(*net.TCPConn), transport.Count{})
	}, nil)
	from := startNode(t, ca, "node-001", nil, nil)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving.Go(func() {
		for {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
				if err != nil {
					t.Error(err)
					_ = conn.Close()
					return
				}
				_, _, _ = transport.Splice(conn.(*net.TCPConn), s, transport.Count{})
			})
		}
	})
	before := 0
	for i := range 300 {
		conn, err := net.Dial("tcp", front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "request")
		_ = conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("round %d: %d bytes, %v", i, len(got), err)
		}
		_ = conn.Close()
		if i == 0 {
			before = descriptors(t)
		}
	}
	from.unused(t)
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	_ = front.Close()
	_ = service.Close()
	serving.Wait()
}

// Bytes written before a reset in order are read, and then the reset. The peer's writes
// fail at once.
func TestResetInOrderComesBehindTheData(t *testing.T) {
	bothWays(t, func(t *testing.T, two *twoNodes, open func() (a, b transport.Stream)) {
		for range 20 {
			a, b := open()
			words := noise(300 << 10)
			if _, err := a.Write(words); err != nil {
				t.Fatal(err)
			}
			if err := a.ResetInOrder(); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
				t.Errorf("this side reads %v", err)
			}
			wrote := make(chan error, 1)
			go func() {
				var err error
				for err == nil {
					_, err = b.Write(make([]byte, 64<<10))
				}
				wrote <- err
			}()
			if err := <-wrote; !errors.Is(err, transport.ErrReset) {
				t.Errorf("the peer writes: %v", err)
			}
			if got, err := io.ReadAll(b); !bytes.Equal(got, words) || !errors.Is(err, transport.ErrReset) {
				t.Errorf("%d bytes of %d came, then %v", len(got), len(words), err)
			}
			_ = a.Close()
			_ = b.Close()
		}
	})
}
