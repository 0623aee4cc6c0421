package forwarder_test

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

func BenchmarkRoundTrip(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			w := newWorld(b, mode)
			_, _, m := w.pair(echo(b))
			conn := connect(b, m.address)
			conn.SetDeadline(time.Time{})
			message := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The whole life of a connection: connect, a byte there and back, close.
func BenchmarkSetUp(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			w := newWorld(b, mode)
			_, _, m := w.pair(echo(b))
			setUps(b, m)
		})
		b.Run(mode+", e2e", func(b *testing.B) {
			w := newWorld(b, mode)
			keys := newKeyring()
			source, target := w.client(w.user), w.client(w.user)
			w.agent(target, keys.with(b, target))
			w.agent(source, keys.with(b, source))
			m := w.mapping(source, target, echo(b))
			w.sealed(m)
			w.listening(m)
			setUps(b, m)
		})
	}
}

func setUps(b *testing.B, m mapping) {
	b.ReportAllocs()
	b.SetParallelism(8)
	b.ResetTimer()
	before := processor(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !works(m.address) {
				b.Error("a connection failed")
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
	b.ReportMetric(float64((processor(b)-before).Microseconds())/float64(b.N), "cpu-us/conn")
}

func BenchmarkThroughput(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			w := newWorld(b, mode)
			_, _, m := w.pair(serve(b, func(c *net.TCPConn) { io.Copy(io.Discard, onlyReader{c}) }))
			conn := connect(b, m.address)
			conn.SetDeadline(time.Time{})
			chunk := make([]byte, 256<<10)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			before := processor(b)
			for b.Loop() {
				if _, err := conn.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((processor(b)-before).Seconds()/(float64(b.N)*float64(len(chunk))/1e9), "cpu-s/GB")
		})
	}
}

// processor gives the processor time this process has used: on a busy machine it
// says more than the clock. The test's own ends are in it.
func processor(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// onlyReader hides ReadFrom and WriteTo, so that bytes are read and not spliced
// away by the kernel.
type onlyReader struct{ io.Reader }
