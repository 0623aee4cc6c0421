package forwarder

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the pause between tries of something that keeps failing: from 5 ms,
// doubled each time, to a second, with jitter so that many do not try together.
type backoff struct{ tries int }

func (b *backoff) reset() { b.tries = 0 }

// wait pauses, or returns early with ctx.
func (b *backoff) wait(ctx context.Context) {
	d := min(5*time.Millisecond<<min(b.tries, 8), time.Second)
	b.tries++
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
