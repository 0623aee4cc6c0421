package reach

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

const (
	// step is the time between the beginnings of two carriers, as between two addresses
	// in RFC 8305. A carrier that failed is followed at once.
	step = 250 * time.Millisecond
	// headStart is step behind a carrier that is known to work. It is long enough for two
	// round trips over a satellite, and short enough to be no outage.
	headStart = 1500 * time.Millisecond
)

// racer is one carrier that has ended.
type racer struct {
	Try
	session transport.Session
}

// race begins the carriers one after another, and returns the first session.
func (d *Dialer) race(ctx context.Context, address string, order []string, known bool) (transport.Session, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan racer)
	running, begun := 0, 0
	begin := func() {
		scheme := order[begun]
		begun++
		running++
		go func() {
			s, err := d.carriers[scheme](ctx, address, d.config)
			ended <- racer{Try{Scheme: scheme, At: time.Now(), Err: err}, s}
		}()
	}
	defer func() {
		cancel()
		go closeLate(ended, running)
	}()
	begin()
	wait := step
	if known {
		wait = headStart
	}
	next := time.NewTimer(wait)
	defer next.Stop()
	failed := &RaceError{}
	for {
		select {
		case <-next.C:
		case r := <-ended:
			running--
			d.note(ctx, r.Scheme, r.Err)
			if r.Err == nil {
				return r.session, r.Scheme, nil
			}
			failed.Tries = append(failed.Tries, r.Try)
		}
		more := begun < len(order) && ctx.Err() == nil
		switch {
		case running == 0 && !more:
			return nil, "", failed.orOnly()
		case more:
			begin()
			next.Reset(step)
		}
	}
}

// orOnly is the reason itself where there is only one.
func (e *RaceError) orOnly() error {
	if len(e.Tries) == 1 {
		return e.Tries[0].Err
	}
	return e
}

// closeLate takes what the others of a race still bring.
func closeLate(ended <-chan racer, running int) {
	for range running {
		if r := <-ended; r.session != nil {
			_ = r.session.Close()
		}
	}
}
