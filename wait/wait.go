// Package wait pauses: for a time, or between tries of something that fails.
//
// Its duty: a pause that ends with its context and leaves no timer behind, and
// tries that grow rarer and do not come together with those of others. Its limit:
// it counts time while the machine is awake. What must happen at a time of day
// looks at a clock.
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

// Backoff is the pause between tries of something that keeps failing. It doubles
// each time. Half of it is drawn, so that many who lost the same thing do not come
// back at once.
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

// Wait pauses before the next try. It reports false when ctx ended first.
func (b *Backoff) Wait(ctx context.Context) bool { return For(ctx, b.Next()) }

// Reset has the next pause be a first one.
func (b *Backoff) Reset() { b.tries = 0 }

// Tries is how many pauses there were since the last Reset.
func (b *Backoff) Tries() int { return b.tries }
