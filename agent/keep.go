package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/tunnox-net/tunnox/wire"
)

const (
	// unhurried is the time over which the replacement of a session is spread when the
	// agent has another session. When a forwarder ends, its agents then do not all
	// connect to the other forwarders at the same moment.
	unhurried = time.Second
	// A session that is being left is closed when it has had no streams for restTime.
	// The agent looks at its streams every restLook.
	restTime, restLook = 300 * time.Millisecond, 50 * time.Millisecond
)

// keep maintains one session, at one forwarder after another, until ctx ends or a
// forwarder refuses the agent for good.
func (a *Agent) keep(ctx context.Context, slot int) {
	var pause backoff
	for {
		c := a.roster.claim(ctx, slot)
		if c == nil {
			return
		}
		instance := a.currentInstance()
		var since time.Time
		c, link, err := a.reach(ctx, c, pause.patience())
		if err == nil {
			since, err = a.connect(ctx, c, link)
		}
		a.roster.release(c)
		if ctx.Err() != nil {
			return
		}
		var refusal *wire.Refusal
		if !errors.As(err, &refusal) {
			refusal = &wire.Refusal{}
		}
		if a.claimed(refusal, c.wanted.address) {
			continue // log in again with the new id, at this or another forwarder
		}
		if refusal.Code == wire.Superseded {
			if !a.standBack(ctx, refusal, instance) {
				return
			}
			continue
		}
		if refusal.Permanent || a.believed(refusal) {
			a.end(&EndedError{Refusal: refusal, File: a.file()})
			return
		}
		pause.ended(since, err)
		if !a.pause(ctx, &pause, refusal, func(d time.Duration) { a.tellNotConnected(c.wanted.address, err, d) }) {
			return
		}
	}
}

// believed counts successive refusals that may come from a server whose records are
// out of date. It returns true when there are enough of them to believe.
func (a *Agent) believed(refusal *wire.Refusal) bool {
	if refusal.Code != wire.UnknownClient && refusal.Code != wire.BadCredential {
		a.unsure.Store(0)
		return false
	}
	return a.sessions.staying(nil) == 0 && a.unsure.Add(1) == maxUnsure
}

// ofTheNode tells whether a refusal concerns this forwarder only. The agent may then
// try another forwarder at once.
func ofTheNode(refusal *wire.Refusal) bool {
	switch refusal.Code {
	case "", wire.NodeDraining, wire.ShuttingDown, wire.TooMany, wire.AlreadyConnected, wire.Internal:
		return true
	}
	return false
}

// pause waits before the next try. The wait is short when a forwarder without trouble
// is free. Otherwise each wait is longer than the one before, and ends early when such
// a forwarder becomes free. pause returns false when ctx ended.
func (a *Agent) pause(ctx context.Context, pause *backoff, refusal *wire.Refusal, tell func(time.Duration)) bool {
	anywhere := ofTheNode(refusal)
	fresh, changed := a.roster.fresh()
	d := pause.next(refusal.RetryAfter)
	if fresh && anywhere {
		d = firstPause/2 + rand.N(firstPause/2)
	}
	if a.sessions.staying(nil) > 0 {
		d = max(d, rand.N(unhurried))
	}
	tell(d)
	if fresh || !anywhere {
		changed = nil // the pause is short already, or no new forwarder may shorten it
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	stirred := a.stir()
	if refusal.Code != "" {
		stirred = nil // the forwarder asked for the pause
	}
	for {
		select {
		case <-timer.C:
			return true
		case <-stirred:
			return true
		case <-changed:
			if fresh, changed = a.roster.fresh(); fresh {
				timer.Reset(min(d, firstPause/2+rand.N(firstPause/2)))
				changed = nil
			}
		case <-ctx.Done():
			return false
		}
	}
}

// depart ends a session that is being left, when the agent has another session and
// this one has no more streams.
func (a *Agent) depart(ctx context.Context, s *session) {
	tick := time.NewTicker(restLook)
	defer tick.Stop()
	for idle := time.Now(); ; {
		select {
		case <-tick.C:
		case <-s.over:
			return
		case <-ctx.Done():
			return
		}
		if s.link.NumStreams() > 1 || a.sessions.staying(s) == 0 { // the control stream is one
			idle = time.Now()
		}
		if time.Since(idle) > restTime {
			s.log.Info("left, with nothing under way")
			s.link.Close()
			return
		}
	}
}

// tellNotConnected logs why there is no session. If the identity of the server does
// not verify, the agent tries again, as it does when the server is away: a renewal of
// the certificate may be under way. But the agent's owner must look at it, so the
// message says what to do, and is not repeated at every try. The loss of one session
// while the agent has another is not logged at every try either.
func (a *Agent) tellNotConnected(server string, err error, retry time.Duration) {
	level, what := slog.LevelWarn, "not connected"
	others := a.sessions.staying(nil) > 0
	switch {
	case unverified(err):
		what = "the server is not the one that --pin, --ca or the system's roots vouch for: check the address, or give the pin or authority it has now; trying on"
		if !a.said.due(complaint{what: "unverified " + server}, time.Now()) {
			level = slog.LevelDebug
		}
	case speaksHTTP(err):
		what = "what answers there speaks HTTP, so it may be the port of the API: give the port for agents, which stands in the server's join line; trying on"
		if !a.said.due(complaint{what: "http " + server}, time.Now()) {
			level = slog.LevelDebug
		}
	case errors.Is(err, wire.AlreadyConnected):
		level = slog.LevelDebug // the load balancer chose the same forwarder again
	case others:
		what = "one session less, connected over another"
		if !a.said.due(complaint{what: "session " + server}, time.Now()) {
			level = slog.LevelDebug
		}
	}
	a.log.Log(context.Background(), level, what, "server", server, "reason", describe(err), "retry_in", retry.Round(time.Millisecond))
}
