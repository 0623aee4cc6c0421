package forwarder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

const (
	renewBatch = 1000                  // sessions in one call of Renew, as its contract says
	ackPause   = 10 * time.Millisecond // acknowledgements of that long go to the directory together
)

// seat gives a proved session its place: an epoch above all earlier ones of the
// client, and the client's place in the routes. Of two agents with one client
// id, the one that comes later stays; the earlier is told so, here at once and
// on other nodes through the directory.
func (f *Forwarder) seat(ctx context.Context, s *session, view domain.ClientView) *wire.Refusal {
	var err error
	if s.epoch, err = f.directory.Register(ctx, s.presence()); err != nil {
		f.metrics.renewals.WithLabelValues("error").Inc()
		s.log.Warn("registering the session in the directory", "error", err)
		return later(time.Second)
	}
	replaced, refusal := f.install(ctx, s, view)
	if refusal != nil {
		if err := f.directory.Remove(ctx, s.presence()); err != nil {
			s.log.Warn("removing the refused session from the directory; its lease will run out", "error", err)
		}
		return refusal
	}
	switch {
	case replaced == nil:
	case replaced.instance == s.instance:
		// The same agent on a new link. The old one is dead, or about to be left by
		// the agent itself; it must not be told that somebody else has taken over.
		replaced.link.Close()
	default:
		replaced.end(wire.Refuse(wire.Superseded))
	}
	select {
	case f.viewed <- struct{}{}:
	default:
	}
	return nil
}

// install puts the session into the routes, with newer views as long as they
// turn out too old for what the feed has delivered meanwhile.
func (f *Forwarder) install(ctx context.Context, s *session, view domain.ClientView) (replaced *session, refusal *wire.Refusal) {
	for {
		replaced, fx, again, refusal := f.routes.install(s, view)
		f.carryOut(fx)
		if again == 0 {
			return replaced, refusal
		}
		var err error
		if view, err = f.view(ctx, s.client, again); err != nil {
			s.log.Warn("looking the client up", "error", err)
			return nil, later(time.Second)
		}
	}
}

// later refuses for a reason of this side's, which will pass.
func later(after time.Duration) *wire.Refusal {
	r := wire.Refuse(wire.Internal)
	r.RetryAfter = after
	return r
}

// renew keeps the leases of the sessions here, and tells the directory what the
// agents have acknowledged.
func (f *Forwarder) renew(ctx context.Context) {
	tick := time.NewTicker(directory.TTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.renewAll(ctx, f.routes.sessions())
		case s := <-f.acked:
			f.renewAll(ctx, f.gatherAcked(ctx, s))
		case <-ctx.Done():
			return
		}
	}
}

// gatherAcked waits a moment for more acknowledgements: after a change of many
// mappings they come in crowds, and one call serves them all.
func (f *Forwarder) gatherAcked(ctx context.Context, first *session) []*session {
	gathered := map[*session]bool{first: true}
	timer := time.NewTimer(ackPause)
	defer timer.Stop()
	for len(gathered) < renewBatch {
		select {
		case s := <-f.acked:
			gathered[s] = true
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		break
	}
	sessions := make([]*session, 0, len(gathered))
	for s := range gathered {
		if f.routes.current(s.client) == s {
			sessions = append(sessions, s)
		}
	}
	return sessions
}

func (f *Forwarder) renewAll(ctx context.Context, sessions []*session) {
	for len(sessions) > 0 {
		n := min(len(sessions), renewBatch)
		if err := f.renewSome(ctx, sessions[:n]); err != nil && ctx.Err() == nil {
			f.metrics.renewals.WithLabelValues("error").Inc()
			f.log.Warn("renewing the sessions in the directory", "sessions", n, "error", err)
		}
		sessions = sessions[n:]
	}
}

func (f *Forwarder) renewSome(ctx context.Context, sessions []*session) error {
	ctx, cancel := context.WithTimeout(ctx, directory.TTL/3)
	defer cancel()
	batch := make([]directory.Session, len(sessions))
	for i, s := range sessions {
		batch[i] = s.presence()
	}
	fenced, err := f.directory.Renew(ctx, batch)
	if err != nil {
		return err
	}
	f.metrics.renewals.WithLabelValues("ok").Inc()
	for _, entry := range fenced {
		f.fenced(entry)
	}
	// A session that ended during the call may just have been put back.
	var left []error
	for i, s := range sessions {
		if f.routes.current(s.client) != s {
			left = append(left, f.directory.Remove(ctx, batch[i]))
		}
	}
	if err := errors.Join(left...); err != nil {
		return fmt.Errorf("remove ended sessions: %w", err)
	}
	return nil
}

// watch ends sessions that were fenced by a newer one on another node.
func (f *Forwarder) watch(ctx context.Context) {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := f.directory.Watch(ctx, f.node, f.fenced)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause.reset()
		}
		f.log.Warn("watching the directory for fenced sessions; renewals find them meanwhile", "error", err)
		pause.wait(ctx)
	}
}

// fenced ends the session that a newer one has fenced, if it is the one here.
func (f *Forwarder) fenced(entry directory.Session) {
	s := f.routes.current(entry.ClientID)
	if s != nil && s.id == entry.Session && s.epoch == entry.Epoch {
		s.end(wire.Refuse(wire.Superseded))
	}
}
