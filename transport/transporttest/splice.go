package transporttest

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// crossing gives the outer ends of two streams whose inner ends are joined, as a
// forwarder joins them, and a channel that tells how the join ended.
func crossing(t *testing.T, pair Pair, count transport.Count) (a, b transport.Stream, ended chan error) {
	t.Helper()
	agent1, forwarder1 := pair(t)
	forwarder2, agent2 := pair(t)
	a, in := streams(t, agent1, forwarder1)
	out, b := streams(t, forwarder2, agent2)
	ended = make(chan error, 1)
	transport.Join(in, out, count, func(_, _ int64, err error) { ended <- err })
	return a, b, ended
}

// Two joined streams are one: bytes, half-closes and counts.
func testSplice(t *testing.T, pair Pair) {
	var forth, back atomic.Int64
	a, b, ended := crossing(t, pair, transport.Count{
		AToB: func(n int) { forth.Add(int64(n)) }, BToA: func(n int) { back.Add(int64(n)) }})
	for i, way := range [][2]transport.Stream{{a, b}, {b, a}} {
		sent := pattern(1<<20, byte(i))
		wrote := make(chan error, 1)
		go func() {
			_, err := way[0].Write(sent)
			wrote <- errors.Join(err, way[0].CloseWrite())
		}()
		if got := readAll(t, way[1]); !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came of %d, or others", len(got), len(sent))
		}
		if err := finished(t, "all is written", wrote); err != nil {
			t.Fatal(err)
		}
	}
	if err := finished(t, "the join ends", ended); err != nil {
		t.Fatal(err)
	}
	if forth.Load() != 1<<20 || back.Load() != 1<<20 {
		t.Errorf("counted %d and %d", forth.Load(), back.Load())
	}
	_ = a.Close()
	_ = b.Close()
}

// A reset of one end reaches the other, and so does the end of a session.
func testSpliceReset(t *testing.T, pair Pair) {
	for _, end := range []func(transport.Stream) error{transport.Stream.Reset, transport.Stream.Close} {
		a, b, ended := crossing(t, pair, transport.Count{})
		blocked := make(chan error, 1)
		go func() {
			_, err := b.Read(make([]byte, 1))
			blocked <- err
		}()
		_ = end(a)
		err := finished(t, "the other end reads its end", blocked)
		if err == nil {
			t.Error("a byte out of nothing")
		}
		_ = b.Close()
		finished(t, "the join ends", ended)
	}
}

// A brake keeps joined streams at its rate, and releases them when it is told to.
func testSpliceLimit(t *testing.T, pair Pair) {
	var brake transport.Brake
	brake.Limit(50_000)
	var moved atomic.Int64
	a, b, ended := crossing(t, pair, transport.Count{AToB: func(n int) { moved.Add(int64(n)) }, Brake: &brake})
	wrote := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := a.Write(make([]byte, 4<<20))
		wrote <- errors.Join(err, a.Close())
	}()
	go func() { _, _ = io.Copy(io.Discard, b); _ = b.Close() }()
	eventually(t, "20,000 bytes pass", func() bool { return moved.Load() >= 20_000 })
	if got, most := moved.Load(), 50_000*(time.Since(began).Seconds()+0.3)+4000; float64(got) > most {
		t.Errorf("%d bytes passed, the rate lets %.0f pass", got, most)
	}
	brake.Limit(0)
	if err := finished(t, "all is written", wrote); err != nil {
		t.Fatal(err)
	}
	if err := finished(t, "the join ends", ended); err != nil {
		t.Fatal(err)
	}
}
