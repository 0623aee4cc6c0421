package forwarder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
)

const (
	directoryWait = directory.TTL / 5     // for one call of the directory
	ackPause      = 10 * time.Millisecond // acknowledgements within this time are sent to the directory together
	comeBack      = time.Second           // the minimum pause before a disconnected agent connects again
)

// seat registers a proved session: it gets an epoch above all earlier ones of the
// client, and the client's place in the routes. Of two agents with one client id, the
// later one stays. The earlier one is told so, here at once and on other nodes through
// the directory. Another session of the same agent at another node stays too.
func (f *Forwarder) seat(ctx context.Context, s *session, view domain.ClientView) *wire.Refusal {
	var err error
	s.epoch, err = f.directory.Register(ctx, s.presence())
	switch {
	case errors.Is(err, directory.ErrSuperseded):
		return f.superseded(ctx, s.client)
	case err != nil:
		f.metrics.renewals.WithLabelValues("error").Inc()
		s.log.Warn("registering the session in the directory", "error", err)
		return later(time.Second)
	}
	s.renewed(f.now())
	replaced, refusal := f.install(ctx, s, view)
	if refusal != nil {
		if err := f.directory.Remove(ctx, s.presence()); err != nil {
			s.log.Warn("removing the refused session from the directory; its lease will expire", "error", err)
		}
		return refusal
	}
	switch {
	case replaced == nil:
	case replaced.instance == s.instance:
		// The same agent on a new link. The old link is dead, or the agent is about to
		// leave it; the agent must not be told that another one has replaced it.
		replaced.link.Close()
	default:
		replaced.end(supersededBy(s.presence()))
	}
	select {
	case f.viewed <- struct{}{}:
	default:
	}
	return nil
}

// install puts the session into the routes. It looks the client up again as long as the
// view is older than the records that the feed has delivered.
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

// later refuses for a reason of this side, which will pass.
func later(after time.Duration) *wire.Refusal {
	r := wire.Refuse(wire.Internal)
	r.RetryAfter = after
	return r
}

// keepPresence keeps this node's lease, and with it all sessions here. It tells the
// directory what the agents have acknowledged, and gets notices about sessions here. It
// ends with an error when another process has this node id.
func (f *Forwarder) keepPresence(ctx context.Context) error {
	tick := time.NewTicker(directory.TTL / 3)
	defer tick.Stop()
	if err := f.beat(ctx); err != nil {
		return err
	}
	f.beaten.Store(true)
	for {
		select {
		case <-tick.C:
			if err := f.beat(ctx); err != nil {
				return err
			}
			f.renew(ctx, f.due())
		case <-f.asked():
			if err := f.beat(ctx); err != nil {
				return err
			}
		case s := <-f.acked:
			f.renew(ctx, f.gatherAcked(ctx, s))
		case <-ctx.Done():
			return nil
		}
	}
}

// asked gives a channel that says that a heartbeat is due early.
func (f *Forwarder) asked() <-chan struct{} {
	if f.portions == nil {
		return nil
	}
	return f.portions.beat
}

// beat prolongs this node's lease. If the lease was lost, all sessions are registered
// again, because they may be lost too.
func (f *Forwarder) beat(ctx context.Context) error {
	f.pace()
	began := f.now()
	ctx, cancel := context.WithTimeout(ctx, directoryWait)
	defer cancel()
	b, err := f.directory.Beat(ctx, f.node, f.run)
	switch {
	case errors.Is(err, directory.ErrNodeTaken):
		return fmt.Errorf("keep the lease of %s: %w", f.node, err)
	case err != nil:
		if !errors.Is(err, context.Canceled) {
			f.lost.Store(new(f.now())) // while the directory is away, other nodes' leases may expire before this one's
			f.metrics.renewals.WithLabelValues("error").Inc()
			f.log.Warn("cannot prolong this node's lease in the directory, trying again", "error", err)
		}
		return nil
	}
	f.metrics.renewals.WithLabelValues("ok").Inc()
	f.portions.leased(began, b.Known)
	if !b.Known && f.beaten.Load() {
		f.log.Warn("the directory has lost this node; registering its sessions again")
		f.lost.Store(new(f.now()))
		for _, s := range f.routes.sessions() {
			s.renewed(time.Time{})
		}
	}
	for _, n := range b.Notices {
		f.told(n)
	}
	return nil
}

// due lists the sessions that must be registered again now.
func (f *Forwarder) due() []*session {
	now := f.now()
	return slices.DeleteFunc(f.routes.sessions(), func(s *session) bool { return !s.isDue(now) })
}

// renewed says that the directory has the session's state as of that time; the zero
// time makes it due. The next time is drawn, so that sessions that began together are
// not renewed together.
func (s *session) renewed(at time.Time) {
	every := max(directory.Refresh, time.Duration(s.f.refreshEvery.Load()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.renewAt = at; !at.IsZero() {
		s.renewAt = at.Add(every/2 + rand.N(every))
	}
}

// pace sets how often sessions are renewed, by their number: it assumes that other
// nodes have as many as this one.
func (f *Forwarder) pace() {
	f.refreshEvery.Store(int64(directory.RefreshEvery(f.routes.connected() * f.neighbours.count())))
}

func (s *session) isDue(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.renewAt.After(now)
}

// gatherAcked waits a moment for more acknowledgements: after a change of many mappings
// they come together, and one call reports them all.
func (f *Forwarder) gatherAcked(ctx context.Context, first *session) []*session {
	gathered := map[*session]bool{first: true}
	timer := time.NewTimer(ackPause)
	defer timer.Stop()
	for len(gathered) < directory.MaxRenew {
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

// renew registers sessions again. After a failure the rest waits for the next time, so
// that this node's lease can be prolonged first.
func (f *Forwarder) renew(ctx context.Context, sessions []*session) {
	for some := range slices.Chunk(sessions, directory.MaxRenew) {
		if err := f.renewSome(ctx, some); err != nil {
			if ctx.Err() == nil {
				f.metrics.renewals.WithLabelValues("error").Inc()
				f.log.Warn("cannot renew sessions in the directory, trying again", "sessions", len(sessions), "error", err)
			}
			return
		}
	}
}

func (f *Forwarder) renewSome(ctx context.Context, sessions []*session) error {
	ctx, cancel := context.WithTimeout(ctx, directoryWait)
	defer cancel()
	batch := make([]directory.Session, len(sessions))
	for i, s := range sessions {
		s.renewed(f.now()) // before the session is described: later changes make it due
		batch[i] = s.presence()
	}
	ended, err := f.directory.Renew(ctx, batch)
	if err != nil {
		for _, s := range sessions {
			s.renewed(time.Time{})
		}
		return err
	}
	f.metrics.renewals.WithLabelValues("ok").Inc()
	for _, n := range ended {
		f.told(n)
	}
	// A session that ended during the call may have been registered again by it.
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

// watch gets notices about sessions here at once.
func (f *Forwarder) watch(ctx context.Context) {
	var pause wait.Backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := f.directory.Watch(ctx, f.node, f.told)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		f.log.Warn("cannot watch the directory; heartbeats bring its notices until then", "error", err)
		pause.Wait(ctx)
	}
}

// told does what a notice asks for. The same notice may come twice.
func (f *Forwarder) told(n directory.Notice) {
	switch n.Kind {
	case directory.Fenced:
		f.start(func() { f.fencedElsewhere(n.Session) }) // it asks which agent has come, which may take a moment
	case directory.Disconnected:
		refusal := wire.Refuse(wire.Disconnected)
		refusal.RetryAfter = comeBack
		f.endNoticed(n.Session, refusal)
	case directory.Wanted:
		f.portions.yield(n.Mapping)
	case directory.Drain:
		if !f.draining.Load() {
			f.log.Info("asked to drain")
			f.start(func() { _ = f.Drain(f.ctx) }) // it ends with this forwarder
		}
	}
}

// endNoticed ends the session of a notice, if it is still the session here.
func (f *Forwarder) endNoticed(entry directory.Session, refusal *wire.Refusal) {
	s := f.routes.current(entry.ClientID)
	if s != nil && s.id == entry.Session && s.epoch == entry.Epoch {
		s.end(refusal)
	}
}
