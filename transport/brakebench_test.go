//go:build unix

package transport_test

import (
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// A splice without a limit costs nothing more: go test -bench Brake ./transport. On a
// busy machine compare the CPU time, not the clock's.
func BenchmarkBrake(b *testing.B) {
	for _, with := range []struct {
		name  string
		brake *transport.Brake
	}{{"none", nil}, {"unlimited", &transport.Brake{}}} {
		b.Run(with.name, func(b *testing.B) {
			from, to, ended := crossing(b, overTLS, transport.Count{AToB: func(int) {}, Brake: with.brake})
			var running sync.WaitGroup
			running.Go(func() { io.Copy(io.Discard, to) })
			chunk := make([]byte, 256<<10)
			b.SetBytes(int64(len(chunk)))
			before := processor(b)
			for b.Loop() {
				if _, err := from.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((processor(b)-before).Seconds()/(float64(b.N)*float64(len(chunk))/1e9), "cpu-s/GB")
			from.Reset()
			<-ended
			running.Wait()
		})
	}
}

func processor(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
