package muxbench

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// session is what the benchmarks need of a multiplexer.
type session interface {
	open() (net.Conn, error)
	accept() (net.Conn, error)
	close()
}

type ours struct{ transport.Session }

func (s ours) open() (net.Conn, error)   { return s.Open(context.Background()) }
func (s ours) accept() (net.Conn, error) { return s.Accept(context.Background()) }
func (s ours) close()                    { _ = s.Close() }

// candidates are compared; each gives the two ends of a session over TLS.
var candidates = []struct {
	name string
	pair func(testing.TB) (session, session)
}{
	{"tunnox", tunnoxPair},
	{"yamux", func(t testing.TB) (session, session) { a, b := yamuxPair(t); return ours{a}, ours{b} }},
	{"smux", func(t testing.TB) (session, session) {
		c1, c2 := tlsPair(t)
		a, err := newSmux(c1, true)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newSmux(c2, false)
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}},
}

func identity(t testing.TB) tls.Certificate {
	dir := t.TempDir()
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func tunnoxPair(t testing.TB) (session, session) {
	cert := identity(t)
	l, err := transport.ListenTLS(listen(t), transport.ListenConfig{Certificate: cert}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a, err := transport.DialTLS(context.Background(), l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{transport.PinOf(cert.Leaf)}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b.Admit()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return ours{a}, ours{b}
}

// tlsPair gives the two ends of a TLS 1.3 connection on loopback.
func tlsPair(t testing.TB) (client, server *tls.Conn) {
	cert := identity(t)
	ln := listen(t)
	accepted := make(chan *tls.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true})
		_ = s.Handshake()
		accepted <- s
	}()
	client, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func yamuxPair(t testing.TB) (transport.Session, transport.Session) {
	c1, c2 := tlsPair(t)
	state := c1.ConnectionState()
	key, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	config := transport.SessionConfig{PingEvery: 5 * time.Second, DeadAfter: 15 * time.Second, MaxStreams: 65536}
	a, err := newYamux(c1, true, key, config)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newYamux(c2, false, key, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// What is compared must be able to do the work: 64 streams of 256 KiB at once,
// echoed byte for byte. The libraries are not held to the whole suite, which
// asks for errors that are ours; what of it they lack stands in doc.go.
func TestCandidatesCarryBytes(t *testing.T) {
	for _, c := range candidates {
		t.Run(c.name, func(t *testing.T) {
			s1, s2 := c.pair(t)
			defer s2.close()
			defer s1.close()
			serve(s2, func(c net.Conn) { _, _ = io.Copy(c, c) })
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() { echoes(t, s1, byte(i)) })
			}
			all.Wait()
		})
	}
}

// echoes sends bytes that only this stream sends and expects them back.
func echoes(t *testing.T, s session, seed byte) {
	c, err := s.open()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	sent := make([]byte, 256<<10)
	for i := range sent {
		sent[i] = seed + byte(i*31)
	}
	failed := make(chan error, 1)
	go func() { _, err := c.Write(sent); failed <- err }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(sent, got) {
		t.Error("the echo differs")
	}
}

// each runs a benchmark with each candidate.
func each(b *testing.B, run func(*testing.B, session, session)) {
	for _, c := range candidates {
		b.Run(c.name, func(b *testing.B) {
			s1, s2 := c.pair(b)
			run(b, s1, s2)
			s1.close()
			s2.close()
		})
	}
}

// serve calls handle with each stream that comes, in a goroutine of its own.
func serve(s session, handle func(net.Conn)) {
	go func() {
		for {
			c, err := s.accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// chunk is what is written at once.
const chunk = 64 << 10

func throughput(b *testing.B, s1, s2 session, streams int) {
	var read sync.WaitGroup
	read.Add(streams)
	serve(s2, func(c net.Conn) {
		defer read.Done()
		buf := make([]byte, chunk)
		for {
			if _, err := c.Read(buf); err != nil {
				_ = c.Close()
				return
			}
		}
	})
	conns := make([]net.Conn, streams)
	for i := range conns {
		c, err := s1.open()
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = c
	}
	data := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	var written sync.WaitGroup
	for i, c := range conns {
		written.Go(func() {
			for range (b.N + i) / streams {
				if _, err := c.Write(data); err != nil {
					b.Error(err)
					return
				}
			}
			_ = c.Close()
		})
	}
	written.Wait()
	read.Wait()
	b.StopTimer()
	b.ReportMetric((cpu()-before).Seconds()/(float64(b.N)*chunk/1e9), "cpu-s/GB")
}

func BenchmarkThroughput1(b *testing.B) {
	each(b, func(b *testing.B, s1, s2 session) { throughput(b, s1, s2, 1) })
}

func BenchmarkThroughput8(b *testing.B) {
	each(b, func(b *testing.B, s1, s2 session) { throughput(b, s1, s2, 8) })
}

// BenchmarkRoundTrip sends 64 bytes there and back.
func BenchmarkRoundTrip(b *testing.B) {
	each(b, func(b *testing.B, s1, s2 session) {
		serve(s2, func(c net.Conn) {
			buf := make([]byte, 64)
			for {
				if _, err := io.ReadFull(c, buf); err != nil {
					return
				}
				_, _ = c.Write(buf)
			}
		})
		c, err := s1.open()
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 64)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
		_ = c.Close()
	})
}

// BenchmarkOpenClose opens a stream, sends a byte there and back and closes it.
func BenchmarkOpenClose(b *testing.B) {
	each(b, func(b *testing.B, s1, s2 session) {
		serve(s2, func(c net.Conn) {
			var buf [1]byte
			if _, err := io.ReadFull(c, buf[:]); err == nil {
				_, _ = c.Write(buf[:])
			}
			_ = c.Close()
		})
		b.ReportAllocs()
		before := cpu()
		for b.Loop() {
			c, err := s1.open()
			if err != nil {
				b.Fatal(err)
			}
			var buf [1]byte
			_, _ = c.Write(buf[:])
			if _, err := io.ReadFull(c, buf[:]); err != nil {
				b.Fatal(err)
			}
			_ = c.Close()
		}
		b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
	})
}

// BenchmarkIdleStream tells the memory of a stream that has carried a little and
// is quiet now, both its ends, without the goroutines of who uses it.
func BenchmarkIdleStream(b *testing.B) {
	const streams = 2000
	each(b, func(b *testing.B, s1, s2 session) {
		var total uint64
		for b.Loop() {
			before := heap()
			conns := make([]net.Conn, 0, 2*streams)
			for range streams {
				c, err := s1.open()
				if err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, 64)
				_, _ = c.Write(buf)
				d, err := s2.accept()
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.ReadFull(d, buf)
				_, _ = d.Write(buf)
				_, _ = io.ReadFull(c, buf)
				conns = append(conns, c, d)
			}
			total += heap() - before
			for _, c := range conns {
				_ = c.Close()
			}
		}
		b.ReportMetric(float64(total)/float64(b.N)/streams, "B/stream")
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkIdleSession tells the memory of a session over TLS that has carried a
// little and is quiet now, both its ends.
func BenchmarkIdleSession(b *testing.B) {
	const sessions = 200
	for _, c := range candidates {
		b.Run(c.name, func(b *testing.B) {
			before := heap()
			var all []session
			for range sessions {
				s1, s2 := c.pair(b)
				st, err := s1.open()
				if err != nil {
					b.Fatal(err)
				}
				_, _ = st.Write(make([]byte, 32<<10))
				in, err := s2.accept()
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.ReadFull(in, make([]byte, 32<<10))
				_ = st.Close()
				_ = in.Close()
				all = append(all, s1, s2)
			}
			used := float64(heap()-before) / sessions
			for _, s := range all {
				s.close()
			}
			for b.Loop() { // the figure is the memory, not the time
			}
			b.ReportMetric(used, "B/session")
		})
	}
}
