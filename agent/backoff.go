package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Pauses between attempts to connect. The first is very short, because most links are
// lost while the server is up. Each pause is twice the one before. During the first
// minute the pauses stay short, because a server that restarts is back in seconds. After
// that they are longer, so that agents do not flood a server that is away.
const (
	firstPause  = 50 * time.Millisecond
	shortPauses = 3 * time.Second
	longPauses  = 30 * time.Second
	shortWhile  = time.Minute
	steady      = 5 * time.Second // a session that lasted so long was a good one
)

// How long an attempt to reach a forwarder may take, with its TLS handshake. After an
// attempt that took too long the next one may take a step longer. When thousands of
// agents come back at once, they wait in a line at the forwarder, and an agent that
// leaves the line must begin at its end.
const (
	patienceStep = 15 * time.Second
	mostPatience = 60 * time.Second
)

type backoff struct {
	tries int
	late  int       // tries in a row that took too long
	since time.Time // of the first failure in a row
}

// patience is how long the next attempt to reach a forwarder may take.
func (b *backoff) patience() time.Duration {
	return min(patienceStep*time.Duration(1+b.late), mostPatience)
}

// ended notes the result of the last attempt: when its session began, zero if there was
// no session, and why it ended, nil if the forwarder asked for the end. After a good
// session the pauses start again with the first. The time of a dial does not count as a
// session.
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

// next gives the pause before the next attempt. It is at least what the forwarder asked for.
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
	// Half of it is random, so that agents that lost the same server do not come back at once.
	d = d/2 + rand.N(d/2+1)
	if atLeast > 0 {
		d = max(d, atLeast+rand.N(atLeast/4+1))
	}
	return d
}
