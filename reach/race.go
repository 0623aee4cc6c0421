package reach

import (
	"context"
	"io"
	"time"
)

const (
	// step is the time between the beginnings of two carriers or two addresses, as RFC
	// 8305 says. One that failed is followed at once.
	step = 250 * time.Millisecond
	// headStart is step behind a carrier that is known to work. It is long enough for two
	// round trips over a satellite, and short enough to be no outage.
	headStart = 1500 * time.Millisecond
)

// ended is what came of one attempt of a race.
type ended[T io.Closer] struct {
	which int
	at    time.Time
	got   T
	err   error
}

// race begins n attempts, one after another: the second lead behind the first, and each
// other a step behind the one before. It returns the first that succeeds. It calls note,
// if that is set, with each attempt that ends before that. If all fail it returns the last
// error.
func race[T io.Closer](ctx context.Context, n int, lead time.Duration, try func(context.Context, int) (T, error), note func(ended[T])) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	ends := make(chan ended[T])
	running, begun := 0, 0
	begin := func() {
		i := begun
		begun++
		running++
		go func() {
			got, err := try(ctx, i)
			ends <- ended[T]{i, time.Now(), got, err}
		}()
	}
	defer func() {
		cancel()
		go closeLate(ends, running)
	}()
	begin()
	next := time.NewTimer(lead)
	defer next.Stop()
	for {
		var last error
		select {
		case <-next.C:
		case e := <-ends:
			running--
			if note != nil {
				note(e)
			}
			if e.err == nil {
				return e.got, nil
			}
			last = e.err
		}
		more := begun < n && ctx.Err() == nil
		switch {
		case more:
			begin()
			next.Reset(step)
		case running == 0:
			var none T
			return none, last
		}
	}
}

// closeLate closes what the others of a race still bring.
func closeLate[T io.Closer](ends <-chan ended[T], running int) {
	for range running {
		if e := <-ends; e.err == nil {
			_ = e.got.Close()
		}
	}
}
