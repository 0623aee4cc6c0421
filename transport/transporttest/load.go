package transporttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// A reader that does not read stops its writer, uses a bounded amount of memory, and
// delays nobody else.
func testBackPressure(t *testing.T, pair Pair) {
	const most = 8 << 20
	a, b := pair(t)
	slow, slowEnd := streams(t, a, b)
	wrote := make(chan int, 1)
	go func() {
		_ = slow.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n := 0
		for chunk := pattern(16<<10, 3); n < 10*most; {
			m, err := slow.Write(chunk)
			n += m
			if err != nil {
				break
			}
		}
		wrote <- n
	}()
	out, in := streams(t, a, b)
	go func() {
		_, _ = io.Copy(in, in)
		_ = in.Close()
	}()
	for i := range 200 { // goes on while the other stream is stuck
		write(t, out, fmt.Sprintf("%04d", i))
		if got := read(t, out, 4); got != fmt.Sprintf("%04d", i) {
			t.Fatalf("%q", got)
		}
	}
	n := finished(t, "the slow stream's writer stops", wrote)
	if n > most {
		t.Fatalf("%d bytes were written to a stream that nobody reads", n)
	}
	_ = slow.SetWriteDeadline(time.Time{})
	got, err := io.CopyN(io.Discard, slowEnd, int64(n))
	if err != nil || got != int64(n) {
		t.Fatalf("%d of %d bytes arrived in the end: %v", got, n, err)
	}
	write(t, slow, "goes on")
	if got := read(t, slowEnd, 7); got != "goes on" {
		t.Fatalf("%q", got)
	}
	_ = slow.Close()
	_ = slowEnd.Close()
	_ = out.Close()
}

func testManyStreams(t *testing.T, pair Pair) {
	const streams = 3000
	a, b := pair(t)
	go func() {
		for {
			in, err := b.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(in, in)
				_ = in.Close()
			}()
		}
	}()
	all := make([]transport.Stream, streams)
	for i := range all {
		s, err := a.Open(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		write(t, s, fmt.Sprintf("%05d", i))
		all[i] = s
	}
	if a.NumStreams() != streams {
		t.Fatalf("%d streams of %d", a.NumStreams(), streams)
	}
	for i, s := range all {
		if got := read(t, s, 5); got != fmt.Sprintf("%05d", i) {
			t.Fatalf("stream %d answers %q", i, got)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range all {
		if rest := readAll(t, s); len(rest) != 0 {
			t.Fatalf("%q", rest)
		}
		_ = s.Close()
	}
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
}

// Both directions at once on several streams, in pieces of odd sizes; the hashes must
// be equal.
func testManyBytes(t *testing.T, pair Pair) {
	const streamsEach, size = 4, 2<<20 + 12345
	a, b := pair(t)
	var all sync.WaitGroup
	errs := make(chan error, 4*streamsEach)
	move := func(s transport.Stream, seed byte) {
		data := pattern(size, seed)
		want := sha256.Sum256(data)
		all.Go(func() {
			for piece := 1; len(data) > 0; piece = piece*3%60013 + 1 {
				n := min(piece, len(data))
				if _, err := s.Write(data[:n]); err != nil {
					errs <- fmt.Errorf("write: %w", err)
					return
				}
				data = data[n:]
			}
			if err := s.CloseWrite(); err != nil {
				errs <- err
			}
		})
		all.Go(func() {
			hash := sha256.New()
			if n, err := io.Copy(hash, s); err != nil || n != size {
				errs <- fmt.Errorf("read %d of %d: %w", n, size, err)
			} else if !bytes.Equal(hash.Sum(nil), want[:]) {
				errs <- errors.New("other bytes arrived")
			}
		})
	}
	for i := range streamsEach {
		out, in := streams(t, a, b)
		move(out, byte(i))
		move(in, byte(i)) // the same seed, so that each end knows what the other sends
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	finished(t, "all bytes arrive", done)
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// After many streams, goroutines and memory are back where they were.
func testChurn(t *testing.T, pair Pair) {
	const rounds = 2000
	a, b := pair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			in, err := b.Accept(context.Background())
			if err != nil {
				return
			}
			_, _ = io.Copy(in, in)
			_ = in.Close()
		}
	}()
	within := ctx(t)
	churn := func(n int) {
		for i := range n {
			s, err := a.Open(within)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 4 {
			case 0: // never announced
				_ = s.Close()
			case 1:
				write(t, s, "x")
				_ = s.Reset()
			default:
				write(t, s, "ping")
				_ = s.CloseWrite()
				if got := readAll(t, s); string(got) != "ping" {
					t.Fatalf("%q", got)
				}
				_ = s.Close()
			}
		}
		eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 && b.NumStreams() == 0 })
	}
	churn(rounds / 4) // fills pools
	goroutines, heap := measure()
	churn(rounds)
	eventually(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	if _, now := measure(); now > heap+1<<20 {
		t.Errorf("the heap grew from %d to %d", heap, now)
	}
	_ = a.Close()
	_ = b.Close()
	finished(t, "the accepting side ends", ended)
}

func measure() (goroutines int, heap uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// When nobody accepts, Open waits as long as its context allows, and returns when
// somebody accepts.
func testOpenWaits(t *testing.T, pair Pair) {
	a, b := pair(t)
	var open []transport.Stream
	for {
		short, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		s, err := a.Open(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("x"))
		if open = append(open, s); len(open) > 5000 {
			t.Fatal("5,000 streams wait to be accepted")
		}
	}
	more := make(chan error, 1)
	go func() {
		s, err := a.Open(ctx(t))
		if err == nil {
			_ = s.Reset()
		}
		more <- err
	}()
	for range open {
		in, err := b.Accept(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		_ = read(t, in, 1)
		_ = in.Reset()
	}
	if err := finished(t, "Open goes on", more); err != nil {
		t.Fatal(err)
	}
	for _, s := range open {
		_ = s.Close()
	}
	eventually(t, "no stream is left", func() bool { return a.NumStreams() == 0 })
}
