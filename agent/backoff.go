package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pauses between tries to connect. The first is nearly none, because most links
// are lost alone and the server is there; then they double. During the first
// minute they stay short, because a server that restarts is back in seconds; a
// server that is away for longer is not besieged.
const (
	firstPause  = 50 * time.Millisecond
	shortPauses = 3 * time.Second
	longPauses  = 30 * time.Second
	shortWhile  = time.Minute
	steady      = 5 * time.Second // a session that lasted so long was a good one
)

type backoff struct {
	tries int
	since time.Time // of the first failure in a row
}

// lasted notes how long the last try held. A good session, or one that the
// forwarder asked to leave, makes the next pause a first one.
func (b *backoff) lasted(d time.Duration, asked bool) {
	if d >= steady || asked {
		*b = backoff{}
	}
}

// next gives the pause before the next try, at least what the forwarder asked for.
func (b *backoff) next(atLeast time.Duration) time.Duration {
	now := time.Now()
	if b.since.IsZero() {
		b.since = now
	}
	most := shortPauses
	if now.Sub(b.since) > shortWhile {
		most = longPauses
	}
	d := min(firstPause<<min(b.tries, 12), most)
	b.tries++
	// Half of it is drawn: agents that lost the same server come back spread out.
	d = d/2 + rand.N(d/2+1)
	if atLeast > 0 {
		d = max(d, atLeast+rand.N(atLeast/4+1))
	}
	return d
}

// sleep waits; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
