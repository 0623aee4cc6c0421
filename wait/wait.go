// Package wait pauses: for a time, or between attempts at something that fails.
//
// Its duty: pauses that end with their context and leave no timer behind, and attempts
// that become rarer and do not happen together with those of others. Its limit: it
// counts the time while the machine is awake. Work that must happen at a time of day
// needs a clock.
package wait

import (
	"context"
	"math/rand/v2"
	"time"
)

// For waits for d. It reports false when ctx ended first.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Backoff is the pause between attempts at something that keeps failing. It doubles
// each time. Half of it is drawn, so that many callers with the same failure do not
// return at once.
type Backoff struct {
	First time.Duration // about the pause after the first failure; 0 = 5 ms
	Most  time.Duration // the longest pause; 0 = 1 s

	tries int
}

// Next gives the next pause.
func (b *Backoff) Next() time.Duration {
	first, most := b.First, b.Most
	if first <= 0 {
		first = 5 * time.Millisecond
	}
	if most <= 0 {
		most = time.Second
	}
	d := most
	if b.tries < 30 && first < most>>b.tries {
		d = first << b.tries
	}
	b.tries++
	return d/2 + rand.N(d/2+1)
}

// Wait pauses before the next attempt. It reports false when ctx ended first.
func (b *Backoff) Wait(ctx context.Context) bool { return For(ctx, b.Next()) }

// Reset makes the next pause a first one.
func (b *Backoff) Reset() { b.tries = 0 }

// Tries gives the number of pauses since the last Reset.
func (b *Backoff) Tries() int { return b.tries }
