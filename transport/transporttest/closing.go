package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

func testHalfClose(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, in := streams(t, a, b)
	for _, side := range [][2]transport.Stream{{out, in}, {in, out}} {
		write(t, side[0], "last words")
		if err := side[0].CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, side[1]); string(got) != "last words" {
			t.Fatalf("%q", got)
		}
		if _, err := side[0].Write([]byte("x")); err == nil {
			t.Fatal("a write after CloseWrite went through")
		}
	}
	eventually(t, "a stream with both sides ended has ended", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
	_ = out.Close()
	_ = in.Close()
}

// Request, end, and a large answer half a second later: most tunnels lose the answer.
func testLateAnswer(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, in := streams(t, a, b)
	answer := pattern(200<<10, 1)
	served := make(chan error, 1)
	go func() {
		request, err := io.ReadAll(in)
		if err == nil && string(request) != "request" {
			err = errors.New("another request came")
		}
		time.Sleep(500 * time.Millisecond) // the case under test
		if err == nil {
			_, err = in.Write(answer)
		}
		served <- errors.Join(err, in.Close())
	}()
	write(t, out, "request")
	if err := out.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, out); !bytes.Equal(got, answer) {
		t.Fatalf("the answer has %d bytes of %d, or others", len(got), len(answer))
	}
	if err := finished(t, "the answer is written", served); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
}

func testCloseDelivers(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, in := streams(t, a, b)
	words := pattern(40<<10, 2)
	if _, err := out.Write(words); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, in); !bytes.Equal(got, words) {
		t.Fatalf("%d bytes came of %d", len(got), len(words))
	}
	_ = in.Close()
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}

func testReset(t *testing.T, pair Pair) {
	a, b := pair(t)
	for range 2 {
		out, in := streams(t, a, b)
		blocked := make(chan error, 1)
		go func() {
			_, err := in.Read(make([]byte, 1))
			blocked <- err
		}()
		if err := out.Reset(); err != nil {
			t.Fatal(err)
		}
		if err := finished(t, "the peer's read fails", blocked); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("the peer reads %v", err)
		}
		if _, err := in.Write([]byte("x")); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("the peer writes: %v", err)
		}
		if _, err := out.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Fatalf("this side reads %v", err)
		}
		_ = in.Close()
		_ = out.Reset()
		a, b = b, a
	}
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}

// Data written before a reset in order is read, and then the reset. The peer may have
// much to write, and learns at once that nobody reads it.
func testResetInOrder(t *testing.T, pair Pair) {
	a, b := pair(t)
	for range 20 {
		out, in := streams(t, a, b)
		words := pattern(40<<10, 3)
		if _, err := out.Write(words); err != nil {
			t.Fatal(err)
		}
		writes := make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				_, err = in.Write(make([]byte, 64<<10))
			}
			writes <- err
		}()
		if err := out.ResetInOrder(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("this side reads %v", err)
		}
		if _, err := out.Write([]byte("x")); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("this side writes: %v", err)
		}
		if err := finished(t, "the peer's writer learns of it", writes); !errors.Is(err, transport.ErrReset) {
			t.Fatalf("the peer writes: %v", err)
		}
		if got, err := io.ReadAll(in); !bytes.Equal(got, words) || !errors.Is(err, transport.ErrReset) {
			t.Fatalf("%d bytes of %d came, then %v", len(got), len(words), err)
		}
		_ = out.Close()
		_ = in.Close()
		a, b = b, a
	}
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}

func testCloseWakes(t *testing.T, pair Pair) {
	a, b := pair(t)
	for _, end := range []func(transport.Stream) error{transport.Stream.Close, transport.Stream.Reset} {
		out, in := streams(t, a, b)
		reads, writes := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := out.Read(make([]byte, 1))
			reads <- err
		}()
		go func() {
			var err error
			for chunk := make([]byte, 64<<10); err == nil; {
				_, err = out.Write(chunk) // blocks: nobody reads
			}
			writes <- err
		}()
		time.Sleep(20 * time.Millisecond) // let them block; when they do not, the test is easier
		watch := pace.Start()
		start := time.Now()
		if err := end(out); err != nil {
			t.Fatal(err)
		}
		if err := finished(t, "the reader wakes", reads); err == nil || err == io.EOF {
			t.Fatalf("the reader got %v", err)
		}
		if err := finished(t, "the writer wakes", writes); err == nil {
			t.Fatalf("the writer got %v", err)
		}
		took := time.Since(start)
		if watch.Stop(); took > watch.Allow(100*time.Millisecond) {
			t.Fatalf("waking took %v at a slowness of %.1f", took, watch.Slowness())
		}
		_ = in.Reset()
	}
}

func testCloseTwice(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, in := streams(t, a, b)
	for range 2 {
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := out.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, transport.ErrReset) {
		t.Fatalf("read after close: %v", err)
	}
	if _, err := out.Write([]byte("x")); err == nil {
		t.Fatal("write after close went through")
	}
	_ = out.CloseWrite()
	_ = out.Reset()
	_ = out.SetDeadline(time.Now().Add(time.Hour))
	_ = in.Reset()
	_ = in.Close()
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// Everything at once, for the race detector.
func testCloseInUse(t *testing.T, pair Pair) {
	a, b := pair(t)
	for i := range 50 {
		out, in := streams(t, a, b)
		var all sync.WaitGroup
		for _, s := range []transport.Stream{out, in} {
			all.Go(func() { _, _ = io.Copy(io.Discard, s) })
			all.Go(func() { _, _ = s.Write(make([]byte, 300<<10)) })
			all.Go(func() { _ = s.SetDeadline(time.Now().Add(time.Duration(i) * time.Millisecond)) })
			all.Go(func() {
				if i%3 == 0 {
					_ = s.CloseWrite()
				}
				if i%2 == 0 {
					_ = s.Reset()
				}
				_ = s.Close()
			})
		}
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		finished(t, "all calls return", done)
	}
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}

func testSessionEnd(t *testing.T, pair Pair) {
	a, b := pair(t)
	out, in := streams(t, a, b)
	calls := make(chan error, 4)
	for _, s := range []transport.Stream{out, in} {
		go func() {
			_, err := io.Copy(io.Discard, s)
			calls <- err
		}()
		go func() {
			var err error
			for err == nil {
				_, err = s.Write(make([]byte, 16<<10))
			}
			calls <- err
		}()
	}
	accepts := make(chan error, 1)
	go func() { _, err := b.Accept(ctx(t)); accepts <- err }()
	if a.Err() != nil {
		t.Fatalf("a live session has an error: %v", a.Err())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := finished(t, "streams end with the session", calls); err == nil {
			t.Fatal("a stream ended without error")
		}
	}
	if err := finished(t, "Accept ends", accepts); !errors.Is(err, transport.ErrSessionClosed) {
		t.Fatalf("accept: %v", err)
	}
	for _, s := range []transport.Session{a, b} {
		finished(t, "both ends are done", s.Done())
		if !errors.Is(s.Err(), transport.ErrSessionClosed) {
			t.Fatalf("why: %v", s.Err())
		}
		if _, err := s.Open(ctx(t)); !errors.Is(err, transport.ErrSessionClosed) {
			t.Fatalf("open: %v", err)
		}
		if s.NumStreams() != 0 {
			t.Fatalf("%d streams", s.NumStreams())
		}
	}
	for _, s := range []transport.Stream{out, in} {
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, transport.ErrSessionClosed) {
			t.Fatalf("read: %v", err)
		}
		_ = s.Close()
	}
}

func testSessionEndDuringOpen(t *testing.T, pair Pair) {
	a, b := pair(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				s, err := a.Open(ctx(t))
				if err != nil {
					return
				}
				_, _ = s.Write([]byte("x"))
				_ = s.Close()
			}
		})
	}
	all.Go(func() {
		for {
			s, err := b.Accept(ctx(t))
			if err != nil {
				return
			}
			_ = s.Close()
		}
	})
	time.Sleep(20 * time.Millisecond)
	_ = b.Close()
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	finished(t, "opens and accepts end", done)
}

func testCancelled(t *testing.T, pair Pair) {
	a, _ := pair(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Open(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("open: %v", err)
	}
	if _, err := a.Accept(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("accept: %v", err)
	}
	if _, err := a.Ping(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("ping: %v", err)
	}
	if a.NumStreams() != 0 || a.Err() != nil {
		t.Fatalf("%d streams, %v", a.NumStreams(), a.Err())
	}
}
