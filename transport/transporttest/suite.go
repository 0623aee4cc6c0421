// Package transporttest is the suite that every carrier must pass: the behaviour on
// which agents and forwarders depend, whatever carries the bytes.
//
// Its duty is behaviour that can be seen through transport.Session and
// transport.Stream. Its limit: speed and size of a carrier are measured in package
// muxbench.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// Pair gives two connected ends of a new session, and closes them at the end of the
// test.
type Pair func(t testing.TB) (a, b transport.Session)

// Run runs the suite.
func Run(t *testing.T, pair Pair) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Pair)
	}{
		{"Nettest", testNettest},
		{"Binding", testBinding},
		{"Ping", testPing},
		{"DataBehindOpen", testDataBehindOpen},
		{"OpenOrder", testOpenOrder},
		{"EmptyStream", testEmptyStream},
		{"HalfCloseBothWays", testHalfClose},
		{"LateAnswer", testLateAnswer},
		{"CloseDeliversWhatWasWritten", testCloseDelivers},
		{"ResetReachesThePeer", testReset},
		{"ResetInOrder", testResetInOrder},
		{"CloseWakesReader", testCloseWakes},
		{"BackPressure", testBackPressure},
		{"ManyStreams", testManyStreams},
		{"ManyBytes", testManyBytes},
		{"Churn", testChurn},
		{"OpenWaitsForAccept", testOpenWaits},
		{"CloseTwice", testCloseTwice},
		{"CloseInUse", testCloseInUse},
		{"SessionEnd", testSessionEnd},
		{"SessionEndDuringOpen", testSessionEndDuringOpen},
		{"CancelledContext", testCancelled},
		{"OnOpen", testOnOpen},
		{"OnRead", testOnRead},
		{"OnReset", testOnReset},
		{"Splice", testSplice},
		{"SpliceReset", testSpliceReset},
		{"SpliceLimit", testSpliceLimit},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, pair) })
	}
}

// limit bounds every step of a test; only a broken carrier needs so long.
const limit = pace.Guard

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return c
}

// streams gives the two ends of a new stream, opened by a.
func streams(t testing.TB, a, b transport.Session) (transport.Stream, transport.Stream) {
	t.Helper()
	out, err := a.Open(ctx(t))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	write(t, out, "!")
	in, err := b.Accept(ctx(t))
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	if got := read(t, in, 1); got != "!" {
		t.Fatalf("the stream begins with %q", got)
	}
	return out, in
}

func write(t testing.TB, w io.Writer, text string) {
	t.Helper()
	if n, err := io.WriteString(w, text); n != len(text) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(text), err)
	}
}

func read(t testing.TB, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(b)
}

func readAll(t testing.TB, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read to the end: %v after %d bytes", err, len(b))
	}
	return b
}

// eventually waits until done gives true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// finished fails the test when the channel gives nothing in time.
func finished[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		buf := make([]byte, 1<<20)
		t.Fatalf("waited in vain: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// pattern gives n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func testNettest(t *testing.T, pair Pair) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := pair(t)
		s1, s2 := streams(t, a, b)
		return s1, s2, func() {
			_ = s1.Close()
			_ = s2.Close()
			_ = a.Close()
			_ = b.Close()
		}, nil
	})
}

func testBinding(t *testing.T, pair Pair) {
	a, b := pair(t)
	if len(a.Binding()) != 32 || !bytes.Equal(a.Binding(), b.Binding()) {
		t.Fatalf("bindings %x and %x", a.Binding(), b.Binding())
	}
	c, _ := pair(t)
	if bytes.Equal(a.Binding(), c.Binding()) {
		t.Fatal("two sessions have one binding")
	}
	clear(a.Binding())
	if !bytes.Equal(a.Binding(), b.Binding()) {
		t.Fatal("the binding can be changed from outside")
	}
	if a.RemoteAddr() == nil || b.RemoteAddr() == nil {
		t.Fatal("a session without remote address")
	}
}

func testPing(t *testing.T, pair Pair) {
	a, b := pair(t)
	for _, s := range []transport.Session{a, b} {
		if rtt, err := s.Ping(ctx(t)); err != nil || rtt < 0 || rtt > limit {
			t.Fatalf("ping: %v, %v", rtt, err)
		}
	}
	_ = b.Close()
	finished(t, "the peer learns of the close", a.Done())
	if _, err := a.Ping(ctx(t)); !errors.Is(err, transport.ErrSessionClosed) {
		t.Fatalf("ping of a closed session: %v", err)
	}
}

func testDataBehindOpen(t *testing.T, pair Pair) {
	a, b := pair(t)
	for _, side := range [][2]transport.Session{{a, b}, {b, a}} {
		out, err := side[0].Open(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		write(t, out, "header")
		write(t, out, "data")
		in, err := side[1].Accept(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, in, 10); got != "headerdata" {
			t.Fatalf("%q", got)
		}
		_ = in.Close()
		_ = out.Close()
	}
}

// Streams may be used in another order than that of their opening, or not at all.
func testOpenOrder(t *testing.T, pair Pair) {
	a, b := pair(t)
	open := func() transport.Stream {
		s, err := a.Open(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, unused, last := open(), open(), open()
	for _, s := range []transport.Stream{last, first} {
		write(t, s, "x")
	}
	_ = unused.Reset() // the peer may never learn of it, or find it reset
	for answered := 0; answered < 2; {
		in, err := b.Accept(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 1)); err == nil {
			write(t, in, "y")
			answered++
		}
		_ = in.Close()
	}
	for _, s := range []transport.Stream{first, last} {
		if got := readAll(t, s); string(got) != "y" {
			t.Fatalf("%q", got)
		}
		_ = s.Close()
	}
}

func testEmptyStream(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, err := a.Open(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := out.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in, err := b.Accept(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, in); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	write(t, in, "answer")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, out); string(got) != "answer" {
		t.Fatalf("%q", got)
	}
	_ = out.Close()
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}
