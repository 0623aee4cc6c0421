package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// raceAfter is how long a forwarder may leave a dial without an answer before the agent
// dials another one beside it. RFC 8305 takes 250 ms for a connection; here a TLS
// handshake belongs to it, with a machine that may have thousands to make.
const raceAfter = 500 * time.Millisecond

// errDial is the error of a dial that did not return.
var errDial = errors.New("the dial ended with a panic")

// attempt is how one dial of a race ended.
type attempt struct {
	claim *claim
	link  transport.Session
	err   error
}

// reach dials the claimed forwarder. An agent without a session also dials a further free
// forwarder each time that none has answered for raceAfter. The first link wins. reach
// returns it with its claim, and gives the other claims back. If there is no link, reach
// returns the first claim and its error. patience limits each dial.
func (a *Agent) reach(ctx context.Context, first *claim, patience time.Duration) (*claim, transport.Session, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan attempt)
	dial := func(c *claim) {
		a.start(func() {
			one := attempt{claim: c, err: errDial}
			defer func() {
				select {
				case ended <- one:
				case <-ctx.Done(): // the race is over
					if one.link != nil {
						one.link.Close()
					}
				}
			}()
			dialling, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			one.link, one.err = a.dial(dialling, c.wanted.address)
		})
	}
	running := []*claim{first}
	dial(first)
	timer := time.NewTimer(raceAfter)
	defer timer.Stop()
	var firstErr error
	for {
		select {
		case <-timer.C:
			if a.sessions.staying(nil) == 0 {
				if c := a.roster.another(); c != nil {
					a.log.Info("a forwarder does not answer, dialling another beside it", "silent", running[len(running)-1].wanted.address, "server", c.wanted.address)
					running = append(running, c)
					dial(c)
				}
			}
			timer.Reset(raceAfter)
		case one := <-ended:
			at := 0
			for running[at] != one.claim {
				at++
			}
			switch {
			case one.err == nil:
				for i, c := range running {
					if i < at {
						a.roster.release(c) // it was silent for longer than the winner
					} else if i > at {
						a.roster.giveBack(c)
					}
				}
				if one.claim != first && firstErr != nil { // the first claim was kept until here
					a.roster.release(first)
				}
				return one.claim, one.link, nil
			case one.claim == first:
				firstErr = fmt.Errorf("connect: %w", one.err)
			default:
				a.roster.release(one.claim)
			}
			if running = append(running[:at:at], running[at+1:]...); len(running) == 0 {
				return first, nil, firstErr
			}
		case <-ctx.Done():
			for _, c := range running {
				if c != first {
					a.roster.giveBack(c)
				}
			}
			return first, nil, fmt.Errorf("connect: %w", ctx.Err())
		}
	}
}
