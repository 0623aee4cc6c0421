package transport_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// crossing gives the two outer ends of a join of two streams, as a forwarder joins
// them, and a channel that tells how the join ended.
func crossing(t testing.TB, pair sessionPair, count transport.Count) (a, b transport.Stream, ended chan error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	half := func() (outer, inner transport.Stream) {
		agent, forwarder := pair(t)
		outer, err := agent.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := outer.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if inner, err = forwarder.Accept(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := inner.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return outer, inner
	}
	a, innerA := half()
	b, innerB := half()
	ended = make(chan error, 1)
	transport.Join(innerA, innerB, count, func(_, _ int64, err error) { ended <- err })
	return a, b, ended
}

// Many splices together keep a rate, in both directions, from one byte a second to more
// than the size of one read.
func TestBrakeHoldsTheRate(t *testing.T) {
	for _, rate := range []int64{1, 10, 1000, 1 << 20, 8 << 20} {
		synctest.Test(t, func(t *testing.T) {
			var brake transport.Brake
			brake.Limit(rate)
			var moved atomic.Int64
			count := func(n int) { moved.Add(int64(n)) }
			const flows = 3
			var running sync.WaitGroup
			var ends []transport.Stream
			for range flows {
				a, b, ended := crossing(t, overMemory, transport.Count{AToB: count, BToA: count, Brake: &brake})
				for _, end := range []transport.Stream{a, b} {
					running.Go(func() { io.Copy(io.Discard, end) })
					running.Go(func() {
						for {
							if _, err := end.Write(make([]byte, 20<<10)); err != nil {
								return
							}
						}
					})
				}
				running.Go(func() { <-ended })
				ends = append(ends, a, b)
			}
			time.Sleep(2 * time.Second) // the first pieces of all splices need no wait
			before, began := moved.Load(), time.Now()
			const span = 20 * time.Second
			time.Sleep(span)
			got := float64(moved.Load()-before) / time.Since(began).Seconds()
			if low, high := 0.97*float64(rate)-1, 1.03*float64(rate)+1; got < low || got > high {
				t.Errorf("%d bytes a second became %.1f", rate, got)
			}
			if !brake.Waited() {
				t.Error("nobody has noticed that something waits")
			}
			for _, end := range ends {
				end.Reset()
			}
			running.Wait()
		})
	}
}

// After a pause there is no burst: unused rate is gone.
func TestBrakeSavesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var brake transport.Brake
		const rate = 100_000
		brake.Limit(rate)
		var moved atomic.Int64
		a, b, ended := crossing(t, overMemory, transport.Count{AToB: func(n int) { moved.Add(int64(n)) }, Brake: &brake})
		time.Sleep(time.Hour)
		go io.Copy(io.Discard, b)
		go a.Write(make([]byte, 10*rate))
		time.Sleep(time.Second)
		if got := moved.Load(); got < rate || got > 1.3*rate {
			t.Errorf("in the second after an hour's pause %d bytes passed, the rate is %d", got, rate)
		}
		a.Reset()
		b.Reset()
		<-ended
	})
}

// Over real sessions: a rate holds. The end or the rise of a rate works at once, and so
// does a reset in the middle of a long wait.
func TestBrakeOverSessions(t *testing.T) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		t.Parallel()
		var brake transport.Brake
		brake.Limit(50_000)
		var moved atomic.Int64
		a, b, ended := crossing(t, pair, transport.Count{AToB: func(n int) { moved.Add(int64(n)) }, Brake: &brake})
		var running sync.WaitGroup
		defer running.Wait()
		received := make(chan int64, 1)
		running.Go(func() {
			n, _ := io.Copy(io.Discard, b) // ends with the reset below
			received <- n
		})
		const much = 8 << 20
		written := make(chan error, 1)
		running.Go(func() {
			_, err := a.Write(make([]byte, much))
			written <- err
		})
		began := time.Now()
		for moved.Load() < 30_000 && time.Since(began) < 20*time.Second {
			time.Sleep(time.Millisecond)
		}
		took := time.Since(began)
		if got := moved.Load(); got < 30_000 || float64(got) > 50_000*(took.Seconds()+0.3)+2000 {
			t.Errorf("%d bytes in %v at 50000 a second", got, took)
		}
		brake.Limit(0)
		began = time.Now()
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes %v after the limit was taken away", much, time.Since(began))
		case <-time.After(pace.Guard):
			t.Fatal("the limit was taken away and nothing flows")
		}
		brake.Limit(1) // the rest would take a month
		running.Go(func() { a.Write(make([]byte, much)) })
		for now := moved.Load(); moved.Load() == now; {
			time.Sleep(time.Millisecond)
		}
		began = time.Now()
		a.Reset()
		select {
		case err := <-ended:
			t.Logf("ended %v after the reset", time.Since(began))
			if !errors.Is(err, transport.ErrReset) {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(pace.Guard):
			t.Fatal("a reset did not end a splice that waits")
		}
		<-received
	})
}
