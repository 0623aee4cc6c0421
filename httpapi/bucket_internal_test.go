package httpapi

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestABucketHasItsBurstAndThenItsRate(t *testing.T) {
	b := newBuckets(100, 200)
	for i := range 200 {
		if g := b.take("ann", noon); g.wait != 0 || g.left != 199-i {
			t.Fatalf("token %d: %+v", i, g)
		}
	}
	if g := b.take("ann", noon); g.wait != 10*time.Millisecond || g.left != 0 || g.full != 2*time.Second {
		t.Errorf("beyond the burst: %+v, want a wait of 10 ms", g)
	}
	if g := b.take("bob", noon); g.wait != 0 {
		t.Errorf("another name waits %v", g.wait)
	}
	taken := 0
	for ms := range 1000 {
		for b.take("ann", noon.Add(time.Duration(ms)*time.Millisecond)).wait == 0 {
			taken++
		}
	}
	if taken < 99 || taken > 101 {
		t.Errorf("%d tokens in a second, want 100", taken)
	}
}

// A clock that is set back by minutes must not refuse anybody for minutes.
func TestABucketKnowsNoClocksThatAreSetBack(t *testing.T) {
	b := newBuckets(100, 200)
	for b.take("ann", noon).wait == 0 {
	}
	before := noon.Add(-10 * time.Minute)
	if g := b.take("ann", before); g.wait > 10*time.Millisecond || g.full > 2*time.Second {
		t.Errorf("after a step back: %+v, want a wait of 10 ms at most", g)
	}
	if g := b.take("ann", before.Add(10*time.Millisecond)); g.wait != 0 {
		t.Errorf("10 ms after a step back: %+v, want a token", g)
	}
	a := &api{config: Config{Clock: time.Now}}
	if now := a.tick(); now == now.Round(0) {
		t.Errorf("limits go by the clock on the wall: %v", now)
	}
}

func TestNamesOfFullBucketsAreForgotten(t *testing.T) {
	b := newBuckets(1, 1)
	b.most = 100
	for i := range 1000 {
		b.take(fmt.Sprint(i), noon)
		if len(b.full) > b.most {
			t.Fatalf("%d names are kept", len(b.full))
		}
	}
	if b.take("late", noon.Add(time.Minute)); len(b.full) > b.most {
		t.Errorf("%d names are kept", len(b.full))
	}
}

func TestAttemptsAreBoundedAndTheOwnerIsNotLockedOut(t *testing.T) {
	const home, attacker = "192.0.2.1:1000", "198.51.100.%d:%d"
	a := newAttempts(nil)
	a.succeeded(home, "ann")
	tries := 0
	for i := range 200 { // 200 addresses, 20 tries each
		for j := range 20 {
			if a.begin(fmt.Sprintf(attacker, i, j), "ann", noon) == 0 {
				tries++
			}
		}
	}
	if tries != accountBurst {
		t.Errorf("%d tries on one account at once, want %d", tries, accountBurst)
	}
	if wait := a.begin(home, "ann", noon); wait != 0 {
		t.Errorf("the owner must wait %v at home", wait)
	}
	if wait := a.begin(home, "bob", noon); wait != 0 {
		t.Errorf("another account must wait %v", wait)
	}
	tries = 0
	for i := range 1000 {
		if a.begin("203.0.113.9:1", fmt.Sprint("user", i), noon) == 0 {
			tries++
		}
	}
	if tries != originBurst {
		t.Errorf("%d accounts tried from one address, want %d", tries, originBurst)
	}
	tries = 0
	for range 100 {
		if a.begin(home, "ann", noon) == 0 {
			tries++
		}
	}
	if tries != pairBurst-1 {
		t.Errorf("%d more tries at home, want %d: a stolen laptop guesses too", tries, pairBurst-1)
	}
	a.succeeded(home, "ann")
	if wait := a.begin(home, "ann", noon); wait != 0 {
		t.Errorf("the owner must wait %v after a success", wait)
	}
}
