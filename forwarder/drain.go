package forwarder

import (
	"context"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/wire"
)

const (
	// leaveTime is how long a drain waits, after the last stream, until agents have
	// moved. An agent that keeps its session here is not asked again.
	leaveTime = 5 * time.Second
	// Agents are asked to leave in groups, because each of them costs the other
	// forwarders a handshake.
	leavePortion, leavePause = 100, 50 * time.Millisecond
	// movingTime is how long a stream waits for a target whose node drains to appear at
	// another node.
	movingTime  = 5 * time.Second
	movingPause = 25 * time.Millisecond
)

// Draining reports whether Drain, StopTaking or Close was called.
func (f *Forwarder) Draining() bool { return f.draining.Load() }

// StopTaking refuses new sessions and streams from now on, as Drain does.
func (f *Forwarder) StopTaking() {
	f.draining.Store(true)
	if f.ports != nil {
		signal(f.ports.changed)
	}
}

// Drain ends this forwarder's work without breaking anything. It accepts no new
// sessions and streams, tells others, tells the agents to move, and returns when the
// streams have ended and the agents have left, or ctx has ended. It does not wait for
// agents that have no other node. It can be called again, to wait once more.
func (f *Forwarder) Drain(ctx context.Context) error {
	f.StopTaking()
	f.leaving.Do(func() {
		if f.announce != nil {
			f.announce(ctx) // before the agents move, so that nobody sends them back
		}
		f.start(func() { f.askToLeave(ctx) })
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var idle time.Time // since when there is no stream
	for {
		streams, sessions := f.inFlight.Load(), f.routes.connected()
		if streams > 0 {
			idle = time.Time{}
		} else if idle.IsZero() {
			idle = time.Now()
		}
		if streams == 0 && (sessions == 0 || !f.neighbours.elsewhere() || time.Since(idle) > leaveTime) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if streams == 0 {
				return nil // agents that did not leave are told to when it closes
			}
			return fmt.Errorf("drain with %d streams open: %w", streams, ctx.Err())
		}
	}
}

// askToLeave tells all agents to move.
func (f *Forwarder) askToLeave(ctx context.Context) {
	for i, s := range f.routes.sessions() {
		if i%leavePortion == leavePortion-1 && f.neighbours.elsewhere() {
			timer := time.NewTimer(leavePause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			case <-f.ctx.Done():
				timer.Stop()
				return
			}
		}
		f.start(func() { s.send(wire.GoAwayMessage(wire.NodeDraining)) })
	}
}
