package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestForEndsWithItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !For(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("waited %v, want a minute", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if For(ctx, time.Minute) || time.Since(began) != time.Second {
			t.Errorf("waited %v, want a second and false", time.Since(began))
		}
		if For(ctx, 0) {
			t.Error("a context that has ended is no reason to go on")
		}
	})
}

func TestBackoffDoublesUpToItsMost(t *testing.T) {
	b := Backoff{First: 10 * time.Millisecond, Most: 70 * time.Millisecond}
	for round := range 2 {
		for try, most := range []time.Duration{10, 20, 40, 70, 70, 70} {
			most *= time.Millisecond
			if d := b.Next(); d < most/2 || d > most {
				t.Errorf("round %d, try %d: %v, want %v to %v", round, try, d, most/2, most)
			}
		}
		b.Reset()
	}
	for range 100 { // far beyond what a shift can hold
		if d := b.Next(); d <= 0 || d > b.Most {
			t.Fatalf("after %d tries: %v", b.Tries(), d)
		}
	}
	var zero Backoff
	for range 20 {
		if d := zero.Next(); d <= 0 || d > time.Second {
			t.Errorf("the zero value gives %v", d)
		}
	}
}

func TestBackoffIsDrawn(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		b := Backoff{First: time.Hour, Most: time.Hour}
		seen[b.Next()] = true
	}
	if len(seen) < 15 {
		t.Errorf("20 pauses had %d lengths", len(seen))
	}
}
