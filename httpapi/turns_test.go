package httpapi

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// Who is known comes first, callers and strangers take turns, and one more stranger
// than may wait is sent away at once.
func TestTurnsGoToTheKnownFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := &turns{free: 1}
		first, err := ts.take(t.Context(), asStranger)
		if err != nil {
			t.Fatal(err)
		}
		var had []standing // who had a turn, in order: one at a time, so that nothing else guards it
		wait := func(who standing) {
			go func() {
				done, err := ts.take(context.Background(), who)
				if err != nil {
					t.Errorf("%d waits and gets %v", who, err)
					return
				}
				had = append(had, who)
				done()
			}()
			synctest.Wait()
		}
		for range mostWaiting[asStranger] {
			wait(asStranger)
		}
		if _, err := ts.take(t.Context(), asStranger); !errors.Is(err, errBusy) || !ts.full(asStranger) {
			t.Errorf("one stranger too many gets %v", err)
		}
		if ts.full(asCaller) || ts.full(asKnown) {
			t.Error("strangers fill the places of others")
		}
		wait(asCaller)
		wait(asCaller)
		wait(asKnown)
		wait(asKnown)
		first()
		synctest.Wait()
		want := []standing{asKnown, asKnown, asCaller, asStranger, asCaller, asStranger, asStranger}
		if len(had) != mostWaiting[asStranger]+4 || !slices.Equal(had[:len(want)], want) {
			t.Errorf("turns went to %v, want %v and strangers", had, want)
		}
		if ts.free != 1 {
			t.Errorf("%d turns are free in the end", ts.free)
		}
	})
}

// Who leaves the line neither keeps a place nor a turn.
func TestWhoLeavesTheLineLosesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := &turns{free: 1}
		done, err := ts.take(t.Context(), asStranger)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		for range 10 {
			go func() { _, err := ts.take(ctx, asStranger); left <- err }()
		}
		synctest.Wait()
		cancel()
		for range 10 {
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		done()
		if len(ts.lines[asStranger]) != 0 || ts.free != 1 {
			t.Errorf("%d wait, %d turns are free", len(ts.lines[asStranger]), ts.free)
		}
	})
}
