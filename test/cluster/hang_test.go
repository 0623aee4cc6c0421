package cluster

import (
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// frozenFor is shorter than any lease: nobody is told that the forwarder is gone.
const frozenFor = 3 * time.Second

// TestForwarderHangs: each forwarder in turn stops answering silently, with a new
// connection every 5 ms. Its kernel still accepts bytes. No connection fails.
// Connections that reach it or lead through it wait for a moment and take another way.
func TestForwarderHangs(t *testing.T) {
	t.Parallel()
	p := newPaired(t)
	watch := pace.Measure(t)
	service := programs.Listen(t, programs.Echo).Port
	port := p.mapping(t, service)
	for i, f := range p.Forwarders {
		load := connections(t, openEvery, port)
		time.Sleep(300 * time.Millisecond) // the load runs
		signal(t, f, syscall.SIGSTOP)
		frozen := time.Now()
		time.Sleep(frozenFor)
		signal(t, f, syscall.SIGCONT)
		awake := time.Now()
		time.Sleep(500 * time.Millisecond)
		load.Stop()
		// Streams through the forwarder hang with it, and continue when it wakes up.
		all := load.between(frozen.Add(50*time.Millisecond), time.Time{})
		var slow time.Duration // the last one that had to wait, as time after the freeze
		for _, o := range all {
			if o.took > watch.Allow(200*time.Millisecond) && o.at.Before(awake) {
				slow = max(slow, o.at.Sub(frozen))
			}
		}
		bad := failed(all)
		t.Logf("forwarder %d frozen for %v: %d of %d connections failed, the slowest took %v, the last that waited began after %v",
			i+1, frozenFor, len(bad), len(all), slowest(all).Round(time.Millisecond), slow.Round(time.Millisecond))
		for _, o := range bad[:min(len(bad), 3)] {
			t.Errorf("a connection begun %v after the freeze failed after %v: %v", o.at.Sub(frozen).Round(time.Millisecond), o.took.Round(time.Millisecond), o.err)
		}
		if s := slowest(all); s > watch.Allow(3*time.Second) && !pace.Race {
			t.Errorf("a connection took %v", s)
		}
		programs.Eventually(t, 20*time.Second, func() error { return p.sessions(4) })
	}
}
