package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// lanesOf gives the two ends of a lane.
func lanesOf(t *testing.T) (a, b *Lane) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = NewLane(out.(*net.TCPConn)); err == nil {
		b, err = NewLane(in.(*net.TCPConn))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Reset(), b.Reset() })
	return a, b
}

// Lanes that are joined carry every byte, count each once and while they flow, and pass
// each end on by itself.
func TestSpliceLanes(t *testing.T) {
	a, fromA := lanesOf(t)
	b, fromB := lanesOf(t)
	var forth, back atomic.Int64
	type result struct {
		forth, back int64
		err         error
	}
	ended := make(chan result, 1)
	go func() {
		f, k, err := SpliceLanes(fromA, fromB, Count{AToB: func(n int) { forth.Add(int64(n)) }, BToA: func(n int) { back.Add(int64(n)) }})
		ended <- result{f, k, err}
	}()
	text := make([]byte, 8<<20)
	_, _ = rand.Read(text)
	carry := func(from, to *Lane) {
		t.Helper()
		go func() { _, _ = from.Write(text) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("other bytes came, %v", err)
		}
	}
	carry(a, b)
	if !pace.Until(pace.Guard, time.Millisecond, func() bool { return forth.Load() == int64(len(text)) }) {
		t.Errorf("%d bytes of an open lane are counted, want %d", forth.Load(), len(text))
	}
	_ = a.CloseWrite()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // as an end is given
		t.Errorf("%d, %v behind the end", n, err)
	}
	carry(b, a) // the other direction goes on
	_ = b.CloseWrite()
	r := <-ended
	if r.err != nil || r.forth != int64(len(text)) || r.back != r.forth || back.Load() != r.back {
		t.Errorf("%+v, counted %d and %d", r, forth.Load(), back.Load())
	}
}

// A lane that is reset resets the other.
func TestSpliceOfALaneThatDies(t *testing.T) {
	a, fromA := lanesOf(t)
	b, fromB := lanesOf(t)
	ended := make(chan error, 1)
	go func() {
		_, _, err := SpliceLanes(fromA, fromB, Count{})
		ended <- err
	}()
	_ = a.Reset()
	if n, err := b.Read(make([]byte, 1)); err == nil || err == io.EOF { //nolint:errorlint // as an end is given
		t.Errorf("the other end got %d, %v", n, err)
	}
	if err := <-ended; err == nil {
		t.Error("the splice ended in order")
	}
}

// A reset is no end, also for a reader whose writer was told of it first: the system
// tells it once.
func TestAResetIsNoEndOfALane(t *testing.T) {
	for name, write := range map[string]func(*Lane) error{
		"Write":    func(l *Lane) error { _, err := l.Write([]byte("x")); return err },
		"WriteNow": func(l *Lane) error { _, err := l.WriteNow([][]byte{[]byte("x")}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := lanesOf(t)
			_ = b.Reset()
			if !pace.Until(pace.Guard, time.Millisecond, func() bool { return write(a) != nil }) {
				t.Fatal("writes go on")
			}
			if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrReset) {
				t.Errorf("the reader gets %d bytes and %v", n, err)
			}
		})
	}
}

// A stranger that begins a thousand lanes has as many as it may have sessions, and the
// listener has none of them when they have had their time.
func TestLanesOfAStrangerAreFew(t *testing.T) {
	const most, lanes = 8, 1000
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.MaxPerAddress, c.MaxWaiting, c.Authenticate, c.Wait = most, 64, 100*time.Millisecond, 100*time.Millisecond
	})
	var served, worst atomic.Int64
	l.OnLane(func(call *LaneCall) {
		if n := served.Add(1); n > worst.Load() {
			worst.Store(n)
		}
		defer served.Add(-1)
		_, _ = call.Read(make([]byte, 1)) // the stranger says nothing
		_ = call.Close()
	})
	client, err := DialConfig{Pins: []Pin{pin}}.ClientTLS(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 10*pace.Guard)
	var work sync.WaitGroup
	slots := make(chan struct{}, 32)
	for range lanes {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			call, err := dialLane(short, l.Addr().String(), DialConfig{Pins: []Pin{pin}}, client)
			if err != nil {
				return // it was not let in
			}
			_ = call.SetDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = call.Read(make([]byte, 1))
			_ = call.Close()
		})
	}
	work.Wait()
	if worst.Load() > most || worst.Load() == 0 {
		t.Errorf("%d lanes were served at once, want %d at most", worst.Load(), most)
	}
	noStrangers(t, l)
}
