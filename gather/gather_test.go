package gather_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/gather"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// double answers after a while. It counts the round trips and remembers the longest.
type double struct {
	trips, longest atomic.Int64
}

func (d *double) ask(ctx context.Context, keys []int) ([]int, error) {
	d.trips.Add(1)
	d.longest.Store(max(d.longest.Load(), int64(len(keys))))
	select {
	case <-time.After(time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	values := make([]int, len(keys))
	for i, k := range keys {
		values[i] = 2 * k
	}
	return values, nil
}

func TestEverybodyGetsTheirOwn(t *testing.T) {
	var d double
	g := gather.New(d.ask, gather.Options{})
	defer g.Close()
	var callers sync.WaitGroup
	for caller := range 50 {
		callers.Go(func() {
			for round := range 20 {
				keys := []int{caller, round, caller * round}[:1+round%3]
				values, err := g.Ask(t.Context(), keys...)
				want := make([]int, len(keys))
				for i, k := range keys {
					want[i] = 2 * k
				}
				if err != nil || !slices.Equal(values, want) {
					t.Errorf("asked for %v: %v, %v", keys, values, err)
				}
			}
		})
	}
	callers.Wait()
	if n := d.trips.Load(); n >= 500 {
		t.Errorf("1000 questions of 50 callers took %d round trips", n)
	}
}

func TestOneAloneIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d double
		g := gather.New(d.ask, gather.Options{})
		began := time.Now()
		for range 10 {
			if _, err := g.Ask(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("ten round trips of 1 ms took %v", took)
		}
		g.Close()
	})
}

func TestWhoLeavesHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d double
		g := gather.New(d.ask, gather.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for i := range 10 {
			callers.Go(func() {
				if i%2 == 0 {
					if _, err := g.Ask(ctx, i); !errors.Is(err, context.Canceled) {
						t.Errorf("who left got %v", err)
					}
					return
				}
				if values, err := g.Ask(t.Context(), i); err != nil || values[0] != 2*i {
					t.Errorf("who stayed got %v, %v", values, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		callers.Wait()
		g.Close()
	})
}

func TestAStuckRoundTripEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gather.New(func(ctx context.Context, _ []int) ([]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, gather.Options{})
		if _, err := g.Ask(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		g.Close()
	})
}

func TestARoundTripIsBounded(t *testing.T) {
	var d double
	g := gather.New(d.ask, gather.Options{})
	defer g.Close()
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			if _, err := g.Ask(t.Context(), make([]int, 20)...); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := d.longest.Load(); n > 256 {
		t.Errorf("a round trip had %d keys", n)
	}
	if values, err := g.Ask(t.Context(), make([]int, 1000)...); err != nil || len(values) != 1000 {
		t.Errorf("1000 keys of one caller: %d values, %v", len(values), err)
	}
}

func TestWhoHasLeftIsAskedForNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d double
		g := gather.New(d.ask, gather.Options{Concurrent: 1})
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = g.Ask(t.Context(), 0) })
		synctest.Wait() // its round trip is under way
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 10 {
			callers.Go(func() { _, _ = g.Ask(ctx, i) })
		}
		synctest.Wait()
		cancel()
		callers.Wait()
		g.Close()
		if n := d.trips.Load(); n != 1 {
			t.Errorf("%d round trips, want 1: nobody waits for a second", n)
		}
	})
}

func TestALifeEndsRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		g := gather.New(func(ctx context.Context, _ []int) ([]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, gather.Options{Life: life, Limit: time.Hour})
		time.AfterFunc(time.Second, end)
		if _, err := g.Ask(t.Context(), 1); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		g.Close()
	})
}
