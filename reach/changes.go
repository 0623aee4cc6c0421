package reach

import (
	"context"
	"time"
)

const (
	// look is how often the machine's clocks and addresses are looked at. It costs an
	// agent some microseconds of a second.
	look = time.Second
	// slept is the least difference between two looks, or between the clocks, that is
	// taken for a sleep. Corrections of the clock are smaller, or rare.
	slept = 5 * time.Second
)

// seen is what one look saw. While a machine sleeps its wall clock goes on, and the
// monotonic clock of Linux and macOS does not. Elsewhere it does, and no look is made.
type seen struct {
	wall, monotonic time.Duration
	network         string
}

// changed tells whether the machine has slept or moved between two looks.
func (s seen) changed(before seen) bool {
	awake := s.monotonic - before.monotonic
	return s.network != before.network || awake > slept || s.wall-before.wall-awake > slept
}

// Changes tells when the machine has slept, or has come into another network: sessions of
// before may be dead without a word. The channel is not closed. Looking ends with ctx.
func Changes(ctx context.Context) <-chan struct{} {
	changes := make(chan struct{}, 1)
	began := time.Now()
	see := func() seen {
		now := time.Now()
		return seen{wall: now.Round(0).Sub(began.Round(0)), monotonic: now.Sub(began), network: networkOf()}
	}
	go func() {
		tick := time.NewTicker(look)
		defer tick.Stop()
		for before := see(); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now := see()
			if now.changed(before) {
				select {
				case changes <- struct{}{}:
				default: // not taken yet
				}
			}
			before = now
		}
	}()
	return changes
}
