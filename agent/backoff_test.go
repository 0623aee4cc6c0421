package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A forwarder that is slow to answer, because thousands come back to it, is given
// more time with each try, and less when it was there again. A dial that took long is
// no session that held, so the pauses grow all the same.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		late := fmt.Errorf("connect: %w", context.DeadlineExceeded)
		for try, want := range []time.Duration{15, 30, 45, 60, 60} {
			if got := b.patience(); got != want*time.Second {
				t.Errorf("try %d may take %v, want %v", try, got, want*time.Second)
			}
			time.Sleep(b.patience())
			b.ended(time.Time{}, late)
			if got, least := b.next(0), firstPause<<try/2; got < least && got < shortPauses/2 {
				t.Errorf("the pause after try %d is %v, want at least %v", try, got, least)
			}
		}
		b.ended(time.Time{}, errors.New("connection refused"))
		if got := b.patience(); got != mostPatience {
			t.Errorf("after a refusal a try may take %v, want %v", got, mostPatience)
		}
		b.ended(time.Now(), errors.New("cut at once"))
		if got := b.patience(); got != mostPatience {
			t.Errorf("after a session of no length a try may take %v, want %v", got, mostPatience)
		}
		began := time.Now()
		time.Sleep(steady)
		b.ended(began, errors.New("cut"))
		if got := b.patience(); got != patienceStep {
			t.Errorf("after a good session a try may take %v, want %v", got, patienceStep)
		}
	})
}

// The pauses between tries: nearly none at first, never long in the first
// minute, and what the forwarder asks for is kept to.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		if d := b.next(0); d > firstPause {
			t.Errorf("the first pause is %v", d)
		}
		var total time.Duration
		for range 20 {
			d := b.next(0)
			total += d
			if d > shortPauses {
				t.Errorf("a pause of %v", d)
			}
			if total > 5*time.Second && d < shortPauses/2 {
				t.Errorf("a pause of %v after %v", d, total)
			}
		}
		if d := b.next(10 * time.Second); d < 10*time.Second || d > 13*time.Second {
			t.Errorf("asked to wait 10 s, the pause is %v", d)
		}
		time.Sleep(shortWhile + time.Second)
		if d := b.next(0); d < longPauses/2 || d > longPauses {
			t.Errorf("after a minute the pause is %v", d)
		}
		b.ended(time.Now().Add(-time.Minute), errors.New("cut"))
		if d := b.next(0); d > firstPause {
			t.Errorf("after a good session the pause is %v", d)
		}
	})
}

// A server that comes and goes for minutes is found in seconds when it stays: each
// session shows that it is there. One that is away for long is not besieged.
func TestBackoffOfAFlappingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		for began := time.Now(); time.Since(began) < 5*time.Minute; {
			session := time.Now()
			time.Sleep(steady / 3)
			b.ended(session, errors.New("cut"))
			pause := b.next(0)
			if pause > shortPauses {
				t.Fatalf("after %v the pause is %v", time.Since(began), pause)
			}
			time.Sleep(pause)
		}
		var longest time.Duration
		for began := time.Now(); time.Since(began) < 5*time.Minute; {
			b.ended(time.Time{}, errors.New("refused"))
			pause := b.next(0)
			longest = max(longest, pause)
			time.Sleep(pause)
		}
		if longest < longPauses/2 {
			t.Errorf("a server that is away is tried every %v", longest)
		}
	})
}
