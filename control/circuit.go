package control

import (
	"cmp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type circuitOptions struct {
	failures int              // in a row, after which it opens; 5
	pause    time.Duration    // how long it is open at first; 500 ms
	longest  time.Duration    // the pause doubles up to this; 5 s
	now      func() time.Time // time.Now
	open     prometheus.Gauge
}

// circuit keeps callers from waiting for a destination that does not answer. After some
// failures in a row it is open: nobody may call for a pause. Then one caller may try,
// and the others may call after that one has succeeded.
type circuit struct {
	options circuitOptions

	mu      sync.Mutex
	failed  int           // in a row; guarded by mu
	pause   time.Duration // the next one; guarded by mu
	until   time.Time     // open before; zero = closed; guarded by mu
	probing time.Time     // since when somebody tries; zero = nobody; guarded by mu
}

func newCircuit(o circuitOptions) *circuit {
	o.failures = cmp.Or(o.failures, 5)
	o.pause = cmp.Or(o.pause, 500*time.Millisecond)
	o.longest = cmp.Or(o.longest, 5*time.Second)
	if o.now == nil {
		o.now = time.Now
	}
	return &circuit{options: o, pause: o.pause}
}

// allow reports whether the caller may try. A caller that tries must report.
func (c *circuit) allow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until.IsZero() {
		return true
	}
	now := c.options.now()
	// A probe that never reports must not keep the circuit open for ever.
	if now.Before(c.until) || (!c.probing.IsZero() && now.Sub(c.probing) < c.options.longest) {
		return false
	}
	c.probing = now
	return true
}

// report sets the result of an attempt.
func (c *circuit) report(ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.failed, c.pause, c.until, c.probing = 0, c.options.pause, time.Time{}, time.Time{}
		c.show(0)
		return
	}
	c.failed++
	wasOpen := !c.until.IsZero()
	if !wasOpen && c.failed < c.options.failures {
		return
	}
	if wasOpen && c.probing.IsZero() {
		return // began before it opened
	}
	c.until, c.probing = c.options.now().Add(c.pause), time.Time{}
	c.pause = min(2*c.pause, c.options.longest)
	c.show(1)
}

func (c *circuit) show(open float64) {
	if c.options.open != nil {
		c.options.open.Set(open)
	}
}

// abandon says that an attempt was given up without a result.
func (c *circuit) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = time.Time{}
}

// isOpen reports whether nobody may call now.
func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.until.IsZero()
}
