package forwarder

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A stream between two agents that are connected here, and that encrypt from one to the
// other, is promoted when it has become bulk: each agent takes a lane, and the forwarder
// joins the two. The stream stays, and says what happens to the mapping; nothing flows on
// it any more.

// ticketFor gives the number by which the two agents of a stream can speak of it; 0 when
// it cannot be promoted.
func (f *Forwarder) ticketFor(fwd *forward, target *session) uint64 {
	source, ok := fwd.origin.(fromAgent)
	if !ok || !fwd.sealed || !source.hasLanes() || !target.hasLanes() {
		return 0
	}
	return f.tickets.Add(1)
}

// note lets the source agent ask for a stream by its ticket.
func (s *session) note(fwd *forward) {
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	if s.lanes.tickets == nil {
		s.lanes.tickets = map[uint64]*forward{}
	}
	s.lanes.tickets[fwd.ticket] = fwd
}

// forget ends the ticket of a stream that has ended.
func (f *forward) forget() {
	source, ok := f.origin.(fromAgent)
	if !ok || f.ticket == 0 {
		return
	}
	source.lanes.mu.Lock()
	defer source.lanes.mu.Unlock()
	delete(source.lanes.tickets, f.ticket)
}

// ticketed gives a stream of this source agent; nil if there is none.
func (s *session) ticketed(ticket uint64) *forward {
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	return s.lanes.tickets[ticket]
}

// promote answers a source agent that asks for lanes for one of its streams.
func (s *session) promote(stream transport.Stream, p *wirepb.Promote) {
	ctx, cancel := context.WithTimeout(s.f.ctx, s.f.limits.Open)
	defer cancel()
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	pair, err := s.joinLanes(ctx, p)
	if err != nil {
		s.f.metrics.lanes.WithLabelValues("unavailable").Inc()
		refuse(stream, err)
		return
	}
	if wire.WriteOpened(stream, nil) != nil {
		pair.Reset() // the agent will not use it
	}
}

// joinLanes takes a lane of each agent of a stream and joins them.
func (s *session) joinLanes(ctx context.Context, p *wirepb.Promote) (*lanePair, error) {
	mine, err := s.takeLane(ctx, p.GetLane())
	if err != nil {
		return nil, err
	}
	fwd := s.ticketed(p.GetTicket())
	if fwd == nil || fwd.hasLanes() || fwd.mapping.meter.braked() {
		_ = mine.Reset()
		return nil, wire.LaneUnavailable
	}
	theirs, err := askForLane(ctx, fwd.at, p.GetTicket())
	if err != nil {
		_ = mine.Reset()
		return nil, err
	}
	pair := &lanePair{source: mine, target: theirs, done: make(chan struct{})}
	if !fwd.promoted(pair) {
		_ = pair.Reset()
		return nil, wire.LaneUnavailable
	}
	if !s.f.start(func() { s.f.spliceLanes(fwd, pair) }) {
		_ = pair.Reset()
		close(pair.done)
		return nil, wire.LaneUnavailable
	}
	return pair, nil
}

// askForLane asks the target agent for a lane for a stream that it has.
func askForLane(ctx context.Context, target *session, ticket uint64) (*transport.Lane, error) {
	stream, err := target.link.Open(ctx)
	if err != nil {
		return nil, wire.LaneUnavailable
	}
	defer stream.Close()
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	err = wire.WriteOpen(stream, &wirepb.Open{Promote: &wirepb.Promote{Ticket: ticket}})
	if err != nil {
		return nil, wire.LaneUnavailable
	}
	answer, err := wire.ReadYes(stream)
	if err != nil {
		stream.Reset()
		return nil, wire.LaneUnavailable
	}
	return target.takeLane(ctx, answer.GetLane())
}

// braked tells whether the payer has a limit of bandwidth now. Lanes obey one that comes
// later, but it is smoother where each piece passes through here.
func (m *meter) braked() bool { return m.payer != nil && m.payer.brake.Limited() }

// lanePair is the lanes of a stream. It is one of its ends.
type lanePair struct {
	source, target     *transport.Lane
	done               chan struct{} // closed when both have ended; the next is set then
	toTarget, toSource int64
}

// Reset ends both lanes at once.
func (p *lanePair) Reset() error {
	_ = p.source.Reset()
	return p.target.Reset()
}

// Close is Reset: the agents end lanes that end in order.
func (p *lanePair) Close() error { return p.Reset() }

// spliceLanes carries what the agents put on the lanes, until they end.
func (f *Forwarder) spliceLanes(fwd *forward, p *lanePair) {
	f.metrics.lanes.WithLabelValues("joined").Inc()
	f.joined.Add(1)
	began := time.Now()
	var err error
	defer func() {
		f.joined.Add(-1)
		close(p.done)
		if err != nil {
			fwd.cut()
		}
		fwd.origin.logger().Debug("lanes ended", "mapping", fwd.mapping.State.ID, "to_target", p.toTarget, "to_source", p.toSource,
			"lasted", time.Since(began).Round(time.Millisecond), "error", err)
	}()
	p.toTarget, p.toSource, err = transport.SpliceLanes(p.source, p.target, fwd.mapping.meter.count)
}

// promoted gives the stream its lanes. It reports false, and resets them, when that is too
// late, or it has some.
func (f *forward) promoted(p *lanePair) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != "" || f.parted || f.lanes != nil {
		return false
	}
	f.lanes, f.ends = p, append(f.ends, p)
	return true
}

// hasLanes tells whether the stream has been promoted.
func (f *forward) hasLanes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lanes != nil
}

// cut ends what a lane that died leaves.
func (f *forward) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.ends {
		_ = end.Reset()
	}
}

// part waits for the lanes of a stream whose own bytes have ended, with an error or not,
// and gives what they have carried. The stream gets no lanes any more.
func (f *forward) part(err error) (toTarget, toSource int64) {
	f.mu.Lock()
	f.parted = true
	p := f.lanes
	f.mu.Unlock()
	if p == nil {
		return 0, 0
	}
	if err != nil {
		_ = p.Reset()
	}
	<-p.done
	return p.toTarget, p.toSource
}
