//go:build unix

package transport_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// slowLink is a link on loopback that carries so many bytes a second from those who
// dial to the server, of all connections together, in turns of a packet. It holds
// little itself: what waits, waits in the sender's system, or not.
type slowLink struct {
	rate float64
	mu   sync.Mutex
	free time.Time // when the link is free
}

const packet = 1448

// pass waits for the link's turn and for the time that n bytes take.
func (l *slowLink) pass(n int) {
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now.Add(-5 * time.Millisecond)) { // it may make up for a late timer
		l.free = now.Add(-5 * time.Millisecond)
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	time.Sleep(time.Until(l.free)) // under the lock: a packet is on the link
	l.mu.Unlock()
}

// listen gives an address that leads to another over the link.
func (l *slowLink) listen(t *testing.T, to string) string {
	small := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		return err
	}}
	ln, err := small.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, near, far)
			mu.Unlock()
			running.Go(func() {
				b := make([]byte, packet)
				for {
					n, err := near.Read(b)
					if err != nil {
						return
					}
					l.pass(n)
					if _, err := far.Write(b[:n]); err != nil {
						return
					}
				}
			})
			running.Go(func() { _, _ = io.Copy(near, far) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return ln.Addr().String()
}

// median of some times, and the longest.
func median(all []time.Duration) (middle, longest time.Duration) {
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}

// Beside downloads that fill a slow uplink a key stroke and a new connection take
// about as long as beside the same downloads over connections of their own.
func TestInteractiveBesideBulk(t *testing.T) {
	for _, c := range []struct {
		name  string
		rate  float64
		bulks int
	}{
		{"1 Mbit, 20 downloads", 125_000, 20},
		{"8 Mbit, 1 download", 1_000_000, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var slow error
			for range 3 { // a fault is there each time, the work of others is not
				if slow = interactive(t, c.rate, c.bulks); slow == nil {
					return
				}
				t.Log(slow)
			}
			t.Error(slow)
		})
	}
}

// interactive compares both ways once. What both are given is as long as on a calm
// machine times how slow this one is.
func interactive(t *testing.T, rate float64, bulks int) error {
	watch := pace.Start()
	defer watch.Stop()
	directKey, directNew := besideBulkDirect(t, rate, bulks)
	key, fresh := besideBulk(t, rate, bulks)
	slack := watch.Allow(200 * time.Millisecond)
	t.Logf("key stroke: direct %v, tunnel %v; new connection: direct %v, tunnel %v; slack %v", directKey, key, directNew, fresh, slack)
	if key > 2*directKey+slack {
		return fmt.Errorf("a key stroke takes %v, direct %v", key, directKey)
	}
	if fresh > 2*directNew+slack {
		return fmt.Errorf("a new connection takes %v, direct %v", fresh, directNew)
	}
	return nil
}

const (
	settleTime = time.Second // until the downloads fill what there is to fill
	strokes    = 6
)

// besideBulk measures over one session, whose agent has the slow uplink.
func besideBulk(t *testing.T, rate float64, bulks int) (key, fresh time.Duration) {
	l, pin := listen(t)
	link := &slowLink{rate: rate}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	agent, err := transport.DialTLS(ctx, link.listen(t, l.Addr().String()), transport.DialConfig{Pins: []transport.Pin{pin}, ServerName: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	server.Admit()
	defer server.Close()
	agent.OnOpen(func(st transport.Stream) {
		go func() { // as a target agent: what it is, then an answer to each byte
			kind := make([]byte, 1)
			if _, err := io.ReadFull(st, kind); err != nil {
				return
			}
			if kind[0] == 'b' {
				for err == nil {
					_, err := st.Write(make([]byte, 32<<10))
					if err != nil {
						return
					}
				}
			}
			_, _ = st.Write(kind)
			_, _ = io.Copy(st, st)
		}()
	})
	open := func(kind string) transport.Stream {
		st, err := server.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Write([]byte(kind)); err != nil {
			t.Fatal(err)
		}
		return st
	}
	echo := func(st transport.Stream, n int) {
		if _, err := io.ReadFull(st, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	shell := open("k")
	echo(shell, 1)
	for range bulks {
		st := open("b")
		go func() { _, _ = io.Copy(io.Discard, st) }()
	}
	time.Sleep(settleTime)
	var keys, news []time.Duration
	for range strokes {
		start := time.Now()
		_, _ = shell.Write([]byte("x"))
		echo(shell, 1)
		keys = append(keys, time.Since(start))
		start = time.Now()
		st := open("k")
		echo(st, 1)
		_, _ = st.Write([]byte("x"))
		echo(st, 1)
		news = append(news, time.Since(start))
		_ = st.Close()
	}
	key, longest := median(keys)
	fresh, longestNew := median(news)
	t.Logf("tunnel: key stroke at most %v, new connection at most %v", longest, longestNew)
	return key, fresh
}

// besideBulkDirect measures over connections of their own.
func besideBulkDirect(t *testing.T, rate float64, bulks int) (key, fresh time.Duration) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // the user's side: it discards, or answers
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				kind := make([]byte, 1)
				if _, err := io.ReadFull(conn, kind); err != nil {
					return
				}
				if kind[0] == 'b' {
					_, _ = io.Copy(io.Discard, conn)
					return
				}
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	link := &slowLink{rate: rate}
	address := link.listen(t, ln.Addr().String())
	open := func(kind string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = conn.Write([]byte(kind))
		return conn
	}
	for range bulks {
		conn := open("b")
		go func() {
			for {
				if _, err := conn.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}()
	}
	shell := open("k")
	time.Sleep(settleTime)
	echo := func(conn net.Conn) time.Duration {
		start := time.Now()
		_, _ = conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	var keys, news []time.Duration
	for range strokes {
		keys = append(keys, echo(shell))
		start := time.Now()
		conn := open("k")
		echo(conn)
		news = append(news, time.Since(start))
		_ = conn.Close()
	}
	key, _ = median(keys)
	fresh, _ = median(news)
	return key, fresh
}

// On a fast link bulk does not wait: a few times at most, until the rate is known.
func TestFastLinkIsNotHeldBack(t *testing.T) {
	for _, streams := range []int{1, 8} {
		l, pin := listen(t)
		var held atomic.Int64
		ctx := t.Context()
		agent, err := transport.DialTLS(ctx, l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin}, ServerName: "x",
			Session: transport.SessionConfig{Queued: func(time.Duration) { held.Add(1) }}})
		if err != nil {
			t.Fatal(err)
		}
		defer agent.Close()
		server, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		server.Admit()
		defer server.Close()
		const total = 128 << 20
		var all sync.WaitGroup
		for range streams {
			st, err := agent.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				for left := total / streams; left > 0; left -= 32 << 10 {
					if _, err := st.Write(make([]byte, 32<<10)); err != nil {
						t.Error(err)
						return
					}
				}
				_ = st.CloseWrite()
			})
		}
		for range streams {
			st, err := server.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if n, err := io.Copy(io.Discard, st); n != total/int64(streams) || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		all.Wait()
		const most = 30 // a machine that stands still for a while looks like a slow link
		if n := held.Load(); n > most {
			t.Errorf("%d streams: bulk was held back %d times, at most %d are right", streams, n, most)
		}
	}
}
