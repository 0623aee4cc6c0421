package transport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// tcpPair gives the two ends of a TCP connection on loopback.
func tcpPair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// joined is the path of a tunnel: user - tcp - agent - stream - forwarder - stream -
// agent - tcp - service.
type joined struct {
	user, service transport.Duplex
	sessions      []transport.Session
	ended         chan error // of each splice
	forth, back   atomic.Int64
}

// sessionPair gives the ends of a session.
type sessionPair func(testing.TB) (transport.Session, transport.Session)

func overMemory(t testing.TB) (transport.Session, transport.Session) {
	a, b := transport.Pipe()
	t.Cleanup(func() { _ = a.Close() })
	return a, b
}

func overTLS(t testing.TB) (transport.Session, transport.Session) {
	l, pin := listen(t)
	return connect(t, l, pin)
}

// tunnelOn joins a user and a service over two sessions.
func tunnelOn(t testing.TB, agent1, forwarder1, forwarder2, agent2 transport.Session) *joined {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	user, local := tcpPair(t)
	remote, service := tcpPair(t)
	stream := func(from, to transport.Session) (transport.Stream, transport.Stream) {
		out, err := from.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		in, err := to.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return out, in
	}
	s1, s2 := stream(agent1, forwarder1)
	s3, s4 := stream(forwarder2, agent2)
	j := &joined{user: user, service: service, ended: make(chan error, 3)}
	splice := func(a, b transport.Duplex, count transport.Count) {
		_, _, err := transport.Splice(a, b, count)
		j.ended <- err
	}
	go splice(local, s1, transport.Count{})
	// As a forwarder does it.
	transport.Join(s2, s3, transport.Count{
		AToB: func(n int) { j.forth.Add(int64(n)) },
		BToA: func(n int) { j.back.Add(int64(n)) },
	}, func(_, _ int64, err error) { j.ended <- err })
	go splice(s4, remote, transport.Count{})
	return j
}

func tunnel(t testing.TB, pair sessionPair) *joined {
	a1, f1 := pair(t)
	f2, a2 := pair(t)
	j := tunnelOn(t, a1, f1, f2, a2)
	j.sessions = []transport.Session{a1, f1, f2, a2}
	return j
}

// eachPair runs the test over the multiplexer, where splices copy nothing, over memory,
// where nobody waits for bytes, and over a carrier of unknown type.
func eachPair(t *testing.T, test func(*testing.T, sessionPair)) {
	t.Run("TLS", func(t *testing.T) { test(t, overTLS) })
	t.Run("Memory", func(t *testing.T) { test(t, overMemory) })
	t.Run("Plain", func(t *testing.T) { test(t, overPlain) })
}

func (j *joined) wait(t testing.TB) (errs []error) {
	t.Helper()
	for range 3 {
		select {
		case err := <-j.ended:
			errs = append(errs, err)
		case <-time.After(pace.Guard):
			buf := make([]byte, 1<<20)
			t.Fatalf("a splice does not end\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
	for _, s := range j.sessions {
		for end := time.Now().Add(pace.Guard); s.NumStreams() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d streams are left", s.NumStreams())
			}
		}
	}
	return errs
}

func TestSpliceCarriesHalfClose(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		j := tunnel(t, pair)
		answer := bytes.Repeat([]byte("0123456789"), 20<<10)
		go func() {
			request, _ := io.ReadAll(j.service)
			time.Sleep(500 * time.Millisecond) // the case under test
			_, _ = j.service.Write(append(request, answer...))
			_ = j.service.Close()
		}()
		_, _ = io.WriteString(j.user, "request")
		_ = j.user.CloseWrite()
		got, err := io.ReadAll(j.user)
		if err != nil || string(got) != "request"+string(answer) {
			t.Fatalf("%d bytes came, %v", len(got), err)
		}
		for _, err := range j.wait(t) {
			if err != nil {
				t.Errorf("splice: %v", err)
			}
		}
		if j.forth.Load() != 7 || j.back.Load() != int64(len(got)) {
			t.Errorf("counted %d and %d", j.forth.Load(), j.back.Load())
		}
	})
}

func TestSpliceMovesMuchBothWays(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		const size = 16<<20 + 321
		j := tunnel(t, pair)
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * i >> 7)
		}
		var all sync.WaitGroup
		for _, end := range []transport.Duplex{j.user, j.service} {
			all.Go(func() {
				_, _ = end.Write(data)
				_ = end.CloseWrite()
			})
			all.Go(func() {
				if got, err := io.ReadAll(end); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes came, %v", len(got), err)
				}
			})
		}
		all.Wait()
		for _, err := range j.wait(t) {
			if err != nil {
				t.Errorf("splice: %v", err)
			}
		}
		if j.forth.Load() != size || j.back.Load() != size {
			t.Errorf("counted %d and %d", j.forth.Load(), j.back.Load())
		}
	})
}

// Bytes are counted while they flow, not when the connection ends.
func TestSpliceCountsLive(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		j := tunnel(t, pair)
		for i := range 10 {
			_, _ = j.user.Write([]byte("12345"))
			_, _ = io.ReadFull(j.service, make([]byte, 5))
			// A goroutine may be interrupted between handing bytes on and counting
			// them.
			for end := time.Now().Add(10 * time.Second); j.forth.Load() != int64(5*(i+1)); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d bytes counted, %d moved", j.forth.Load(), 5*(i+1))
				}
			}
		}
		_ = j.user.Close()
		_ = j.service.Close()
		j.wait(t)
	})
}

func TestSpliceCarriesReset(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		for name, from := range map[string]func(*joined) (from, to transport.Duplex){
			"user":    func(j *joined) (transport.Duplex, transport.Duplex) { return j.user, j.service },
			"service": func(j *joined) (transport.Duplex, transport.Duplex) { return j.service, j.user },
		} {
			j := tunnel(t, pair)
			out, in := from(j)
			_, _ = out.Write([]byte("x"))
			_, _ = io.ReadFull(in, make([]byte, 1))
			_ = transport.Reset(out)
			_ = in.SetReadDeadline(time.Now().Add(pace.Guard))
			if _, err := in.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || isTimeout(err) {
				t.Errorf("%s: the other end reads %v", name, err)
			}
			failed := 0
			for _, err := range j.wait(t) {
				if err != nil {
					failed++
				}
			}
			if failed != 3 {
				t.Errorf("%s: %d of 3 splices tell of it", name, failed)
			}
		}
	})
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// A reader that does not read stops the writer behind three splices.
func TestSpliceBackPressure(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		j := tunnel(t, pair)
		_ = j.user.SetWriteDeadline(time.Now().Add(time.Second))
		n := 0
		for chunk := make([]byte, 64<<10); n < 256<<20; {
			m, err := j.user.Write(chunk)
			n += m
			if err != nil {
				break
			}
		}
		if n >= 64<<20 {
			t.Fatalf("%d bytes went to a reader that does not read", n)
		}
		_ = j.user.CloseWrite()
		if got, err := io.Copy(io.Discard, j.service); got != int64(n) || err != nil {
			t.Fatalf("%d of %d bytes arrived: %v", got, n, err)
		}
		_ = j.service.Close()
		j.wait(t)
	})
}

func TestSpliceEndsWithSession(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		j := tunnel(t, pair)
		_, _ = j.user.Write([]byte("x"))
		_, _ = io.ReadFull(j.service, make([]byte, 1))
		_ = j.sessions[1].Close()
		for _, err := range j.wait(t) {
			if err == nil {
				t.Error("a splice ended as if all was well")
			}
		}
		if _, err := j.user.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the user reads %v", err)
		}
	})
}

// The answer of a service that closes without reading to the end arrives, although the
// user still sends. A deadline from before the splice has no effect.
func TestSpliceDeliversTheAnswerOfWhoStopsListening(t *testing.T) {
	agent, forwarder := overTLS(t)
	agent2, forwarder2 := overTLS(t)
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	open := func(from, to transport.Session) (transport.Stream, transport.Stream) {
		out, err := from.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = out.Write([]byte("x"))
		in, err := to.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(in, make([]byte, 1))
		return out, in
	}
	user, local := tcpPair(t)
	s1, s2 := open(agent, forwarder)
	s3, service := open(forwarder2, agent2)
	for _, s := range []transport.Stream{s1, s2, s3} {
		_ = s.SetDeadline(time.Now().Add(100 * time.Millisecond))
	}
	ended := make(chan error, 2)
	go func() { _, _, err := transport.Splice(local, s1, transport.Count{}); ended <- err }()
	go func() { _, _, err := transport.Splice(s2, s3, transport.Count{}); ended <- err }()
	time.Sleep(150 * time.Millisecond) // beyond the old deadlines
	go func() {
		for {
			if _, err := user.Write(make([]byte, 10<<10)); err != nil {
				return
			}
		}
	}()
	answer := bytes.Repeat([]byte("answer"), 50<<10)
	go func() {
		_, _ = io.ReadFull(service, make([]byte, 100))
		_, _ = service.Write(answer)
		_ = service.Close()
	}()
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(user, got); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("%d of %d bytes came: %v", n, len(answer), err)
	}
	for range 2 {
		select {
		case <-ended:
		case <-ctx.Done():
			t.Fatal("a splice does not end")
		}
	}
}

// After a thousand connections nothing is left of them.
func TestJoinedStreamsNeedNoGoroutine(t *testing.T) {
	ctx := t.Context()
	a1, f1 := overTLS(t)
	f2, a2 := overTLS(t)
	type result struct {
		aToB, bToA int64
		err        error
	}
	results := make(chan result, 1)
	var users, services []transport.Stream
	before := runtime.NumGoroutine()
	for range 100 {
		user, _ := a1.Open(ctx)
		_, _ = user.Write([]byte("hello"))
		in, err := f1.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out, err := f2.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		transport.Join(in, out, transport.Count{}, func(aToB, bToA int64, err error) { results <- result{aToB, bToA, err} })
		service, err := a2.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(service, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		users, services = append(users, user), append(services, service)
	}
	if now := runtime.NumGoroutine(); now > before+3 {
		t.Errorf("100 idle joined streams added %d goroutines", now-before)
	}
	for i := range users {
		_ = users[i].CloseWrite()
		_, _ = io.ReadAll(services[i])
		_, _ = services[i].Write([]byte("bye"))
		_ = services[i].CloseWrite()
		if got, _ := io.ReadAll(users[i]); string(got) != "bye" {
			t.Fatalf("got %q", got)
		}
		if r := <-results; r != (result{5, 3, nil}) {
			t.Errorf("done was given %+v", r)
		}
	}
}

func TestSpliceChurn(t *testing.T) {
	a1, f1 := overTLS(t)
	f2, a2 := overTLS(t)
	run := func(n int) {
		for i := range n {
			j := tunnelOn(t, a1, f1, f2, a2)
			_, _ = j.user.Write([]byte("hello"))
			_, _ = io.ReadFull(j.service, make([]byte, 5))
			if i%5 == 0 {
				_ = transport.Reset(j.user)
			} else {
				_ = j.user.Close()
			}
			_ = j.service.Close()
			for range 3 {
				<-j.ended
			}
		}
	}
	run(50)
	before := runtime.NumGoroutine()
	run(1000)
	for end := time.Now().Add(pace.Guard); ; time.Sleep(time.Millisecond) {
		left := a1.NumStreams() + f1.NumStreams() + f2.NumStreams() + a2.NumStreams()
		if left == 0 && runtime.NumGoroutine() <= before+2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d streams and %d goroutines are left, there were %d", left, runtime.NumGoroutine(), before)
		}
	}
}
