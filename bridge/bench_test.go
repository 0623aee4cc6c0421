package bridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// The three paths of a byte are measured in one run. Other programs use this machine
// too, so only the ratios between the paths mean something. CPU counts both ends, user
// and kernel time.

type ways struct {
	name string
	pair func(testing.TB) (a, b net.Conn)
}

var benchWays = []ways{{"tcp", tcpPair}, {"session", sessionPair}, {"bridge", bridgePair}}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// sessionPair gives both ends of a stream of an agent's session.
func sessionPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	ca := newAuthority(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.issue(t, "node-002", nil)
	ln, err := transport.ListenTLS(tcp, transport.ListenConfig{Certificate: *cert}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	agent, err := transport.DialTLS(ctx, tcp.Addr().String(), transport.DialConfig{Pins: []transport.Pin{transport.PinOf(cert.Leaf)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	server, err := ln.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	server.Admit()
	opened, err := agent.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Write([]byte{0}); err != nil { // the peer learns of the stream with the first byte
		t.Fatal(err)
	}
	taken, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(taken, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return opened, taken
}

func bridgePair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	p := startTwo(t, nil).open(t)
	return p.opener, p.acceptor
}

// cpu gives the CPU time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThroughput writes 64 KiB at a time on one stream.
func BenchmarkThroughput(b *testing.B) {
	for _, way := range benchWays {
		b.Run(way.name, func(b *testing.B) {
			from, to := way.pair(b)
			const size = 64 << 10
			b.SetBytes(size)
			b.ReportAllocs()
			done := make(chan error, 1)
			go func() {
				var total int
				buf := make([]byte, size)
				for total < b.N*size {
					n, err := to.Read(buf)
					if err != nil {
						done <- err
						return
					}
					total += n
				}
				done <- nil
			}()
			buf := make([]byte, size)
			b.ResetTimer()
			used := cpu()
			for range b.N {
				if _, err := from.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric((cpu()-used).Seconds()/(float64(b.N)*size/1e9), "cpu-s/GB")
		})
	}
}

// BenchmarkRoundTrip sends 64 bytes to an echo and waits for them.
func BenchmarkRoundTrip(b *testing.B) {
	for _, way := range benchWays {
		b.Run(way.name, func(b *testing.B) {
			from, to := way.pair(b)
			go func() {
				buf := make([]byte, 64)
				for {
					if _, err := io.ReadFull(to, buf); err != nil {
						return
					}
					if _, err := to.Write(buf); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, 64)
			took := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				begin := time.Now()
				if _, err := from.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(from, buf); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			_ = from.Close()
			_ = to.Close()
		})
	}
}

// BenchmarkOpen opens a stream, sends a byte, receives a byte, and closes the stream.
func BenchmarkOpen(b *testing.B) {
	ca := newAuthority(b)
	to := startNode(b, ca, "node-002", func(_ context.Context, _ Identity, s transport.Stream) {
		for buf := make([]byte, 1); ; {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			_, _ = s.Write(buf[:n])
		}
	}, nil)
	from := startNode(b, ca, "node-001", nil, nil)
	one := func() error {
		s, err := from.pool.Open(context.Background(), to.Peer)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.Write([]byte{1}); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return err
		}
		if err := s.CloseWrite(); err != nil {
			return err
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			return errors.New("the echo did not end")
		}
		return nil
	}
	if err := one(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	used := cpu()
	for range b.N {
		if err := one(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-µs/open")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "opens/s")
}
