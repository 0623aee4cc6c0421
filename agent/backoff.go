package agent

import (
	"context"
	"errors"
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

// How long a try may take to reach a forwarder, its TLS handshake included. Each one
// that took too long gives the next a step more: a forwarder to which thousands of
// agents come back at once has them wait in a line, and who leaves it begins at its
// end.
const (
	patienceStep = 15 * time.Second
	mostPatience = 60 * time.Second
)

type backoff struct {
	tries int
	late  int       // tries in a row that took too long
	since time.Time // of the first failure in a row
}

// patience is how long the next try may take to reach a forwarder.
func (b *backoff) patience() time.Duration {
	return min(patienceStep*time.Duration(1+b.late), mostPatience)
}

// ended notes what the last try came to: since when there was a session, zero for
// none, and why it ended, nil when the forwarder asked for that. A good session makes
// the next pause a first one. To wait for a dial is no session, however long it was.
func (b *backoff) ended(since time.Time, err error) {
	switch {
	case since.IsZero() && errors.Is(err, context.DeadlineExceeded):
		b.late++
	case !since.IsZero() && (err == nil || time.Since(since) >= steady):
		*b = backoff{}
	case !since.IsZero():
		b.since = time.Time{} // the server is there, if not for long: it will be back in seconds
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
