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
	// unhurried is within what a session is replaced while there is another: when a
	// forwarder ends, its agents come to the others spread over so long.
	unhurried = time.Second
	// A session that is being left is closed when it has carried
	// nothing for restTime; its streams are looked at every restLook.
	restTime, restLook = 300 * time.Millisecond, 50 * time.Millisecond
)

// keep keeps one session, at one forwarder after the other, until ctx ends or the
// agent was refused for good.
func (a *Agent) keep(ctx context.Context, slot int) {
	var pause backoff
	for {
		c := a.roster.claim(ctx, slot)
		if c == nil {
			return
		}
		instance := a.currentInstance()
		since, err := a.connect(ctx, c, pause.patience())
		a.roster.release(c)
		if ctx.Err() != nil {
			return
		}
		var refusal *wire.Refusal
		if !errors.As(err, &refusal) {
			refusal = &wire.Refusal{}
		}
		if a.claimed(refusal, c.wanted.address) {
			continue // the same or another forwarder, as the id to come back as
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

// believed counts refusals in a row that may come from a server that is not up to
// date, and tells when they are to be believed.
func (a *Agent) believed(refusal *wire.Refusal) bool {
	if refusal.Code != wire.UnknownClient && refusal.Code != wire.BadCredential {
		a.unsure.Store(0)
		return false
	}
	return a.sessions.staying(nil) == 0 && a.unsure.Add(1) == maxUnsure
}

// ofTheNode tells whether what ended a session says something about that forwarder
// only, so that another may be tried at once.
func ofTheNode(refusal *wire.Refusal) bool {
	switch refusal.Code {
	case "", wire.NodeDraining, wire.ShuttingDown, wire.TooMany, wire.AlreadyConnected, wire.Internal:
		return true
	}
	return false
}

// pause waits before the next try: hardly, when there is a forwarder to try that
// had no trouble; otherwise longer and longer, until there is one. It reports false
// when ctx ended.
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
		changed = nil // the pause is short as it is, or is to be kept whatever comes
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
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

// depart ends a session that is being left, when there is another one and it
// carries nothing any more.
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
		if s.link.NumStreams() > 1 || a.sessions.staying(s) == 0 { // one is the control stream
			idle = time.Now()
		}
		if time.Since(idle) > restTime {
			s.log.Info("left, with nothing under way")
			s.link.Close()
			return
		}
	}
}

// tellNotConnected says why there is no session. A server whose identity does
// not verify is tried again like one that is away, since a renewal may be under
// way, but it is a thing for the agent's owner to look at: it is told with what
// to do, and not with every try. What happens to one session while there is
// another is not told with every try either.
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
		level = slog.LevelDebug // a balancer has led to the same forwarder
	case others:
		what = "one session less, connected over another"
		if !a.said.due(complaint{what: "session " + server}, time.Now()) {
			level = slog.LevelDebug
		}
	}
	a.log.Log(context.Background(), level, what, "server", server, "reason", describe(err), "retry_in", retry.Round(time.Millisecond))
}
