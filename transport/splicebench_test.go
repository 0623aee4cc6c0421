//go:build unix

package transport_test

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These benchmarks go over all three hops in one process, TLS included.

func BenchmarkTunnelThroughput(b *testing.B) {
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a1, f1 := overTLS(b)
			f2, a2 := overTLS(b)
			const chunk = 64 << 10
			b.SetBytes(chunk)
			b.ReportAllocs()
			var all sync.WaitGroup
			tunnels := make([]*joined, n)
			for i := range tunnels {
				tunnels[i] = tunnelOn(b, a1, f1, f2, a2)
			}
			b.ResetTimer()
			before := cpuTime()
			for i, j := range tunnels {
				all.Go(func() {
					data := make([]byte, chunk)
					for range (b.N + i) / n {
						if _, err := j.user.Write(data); err != nil {
							b.Error(err)
							return
						}
					}
					_ = j.user.Close()
				})
				all.Go(func() {
					buf := make([]byte, 256<<10)
					for {
						if _, err := j.service.Read(buf); err != nil {
							_ = j.service.Close()
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric((cpuTime()-before).Seconds()/(float64(b.N)*chunk/1e9), "cpu-s/GB")
		})
	}
}

// cpuTime gives the CPU time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkTunnelRoundTrip(b *testing.B) {
	j := tunnel(b, overTLS)
	go func() { _, _ = io.Copy(struct{ io.Writer }{j.service}, struct{ io.Reader }{j.service}) }()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = j.user.Write(buf)
		if _, err := io.ReadFull(j.user, buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = j.user.Close()
	_ = j.service.Close()
}

// BenchmarkTunnelIdle measures the memory of an idle connection over all three hops,
// without its two outer ends: two sockets, four stream ends, three splices.
func BenchmarkTunnelIdle(b *testing.B) {
	const tunnels = 1000
	a1, f1 := overTLS(b)
	f2, a2 := overTLS(b)
	var total uint64
	for b.Loop() {
		outer := heap()
		var ends []io.Closer
		for range 2 * tunnels {
			c, d := tcpPair(b)
			ends = append(ends, c, d)
		}
		perSocket := (heap() - outer) / (4 * tunnels)
		for _, c := range ends {
			_ = c.Close()
		}
		before := heap()
		all := make([]*joined, tunnels)
		for i := range all {
			all[i] = tunnelOn(b, a1, f1, f2, a2)
			_, _ = all[i].user.Write([]byte("hello"))
			_, _ = io.ReadFull(all[i].service, make([]byte, 5))
		}
		total += heap() - before - 2*tunnels*perSocket
		for _, j := range all {
			_ = j.user.Close()
			_ = j.service.Close()
			for range 3 {
				<-j.ended
			}
		}
	}
	b.ReportMetric(float64(total)/float64(b.N)/tunnels, "B/connection")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
