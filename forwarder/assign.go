package forwarder

import (
	"bytes"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/netaddr"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// maxPushes bounds the pushes of one session that are remembered until they are
// acknowledged. An agent that acknowledges nothing costs no more than these.
const maxPushes = 64

// configure brings the agent's configuration up to date. at is the time at which the
// cause was decided, zero when it is not measured. Between two changes no goroutine
// waits: an idle session has none for this.
func (s *session) configure(at time.Time) {
	s.mu.Lock()
	if s.wrong.IsZero() {
		s.wrong = at
	}
	s.stale = true
	begin := s.welcomed && !s.assigning
	s.assigning = s.assigning || begin
	s.mu.Unlock()
	if begin {
		s.f.start(s.assign)
	}
}

// assign makes the agent's configuration equal to the routes. It sends states, not
// changes: however many changes come while the agent reads slowly, one message follows,
// and nothing queues.
func (s *session) assign() {
	fine := false
	defer func() {
		if !fine { // also after a panic: the reason that ends this ends the session
			s.cut()
		}
	}()
	for s.takeStale() {
		if !s.assignOnce() || !s.offer() {
			return
		}
	}
	fine = true
}

// takeStale reports whether there is something to assign. If there is nothing, the next
// change starts another assignment.
func (s *session) takeStale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	stale := s.stale
	s.stale, s.assigning = false, stale
	return stale
}

// assignWhole makes the next assignment a whole configuration. An agent accepts it
// although its version is lower than that of the one before, which happens when the log
// was rolled back.
func (s *session) assignWhole() {
	s.mu.Lock()
	s.whole, s.ack, s.pushes = true, 0, nil
	s.mu.Unlock()
	s.configure(time.Time{})
}

func (s *session) takeWhole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := s.whole
	s.whole = false
	return whole
}

// assignOnce sends what the agent lacks. It reports false when the session has ended.
func (s *session) assignOnce() bool {
	listeners, lacking, position := s.f.routes.configuration(s)
	if position == 0 {
		return false // the session is not in the routes any more, so there is nothing to assign
	}
	if !slices.Equal(lacking, s.lacking) {
		s.lacking = lacking
		if len(lacking) > 0 {
			s.log.Warn("the agent should listen for mappings whose protocol or encryption it does not carry: update it", "mappings", lacking[:min(len(lacking), 10)], "carries", s.carries)
		}
	}
	if s.takeWhole() {
		s.sent, s.running = nil, nil
	}
	message := s.difference(listeners, s.sent, s.sent == nil)
	since := s.resetWrong()
	if message == nil {
		return true
	}
	message.Version = uint64(position)
	s.pushed(push{version: message.Version, at: since})
	for _, part := range wire.AssignParts(message) {
		if !s.tell(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: part}}) {
			return false
		}
	}
	s.sent = make(map[int64]*wirepb.Listener, len(listeners))
	for _, l := range listeners {
		s.sent[l.MappingId] = l
	}
	return true
}

// offer tells the agent where it may have sessions, if that has changed. It reports
// false when the session has ended.
func (s *session) offer() bool {
	offer := s.f.neighbours.offer(s.client)
	same := func(a, b *wirepb.Forwarder) bool { return proto.Equal(a, b) }
	if slices.EqualFunc(offer, s.offered, same) {
		return true
	}
	s.offered = offer
	return s.tell(&wirepb.Control{Message: &wirepb.Control_Forwarders{Forwarders: &wirepb.Forwarders{Forwarders: offer}}})
}

// tell sends a message that the agent needs. If that fails, the session is useless, and
// the log gives the reason: the end of the session alone would look as if the agent had
// left.
func (s *session) tell(m *wirepb.Control) bool {
	err := s.send(m)
	if err != nil && s.link.Err() == nil && s.reason() == nil {
		s.log.Warn("the session ends: the agent cannot be told its configuration", "error", err)
	}
	return err == nil
}

// difference gives the message that changes the agent's listeners from sent to
// listeners, or nil. The first message of a session is a whole configuration, unless
// the agent has said that it runs exactly this one.
func (s *session) difference(listeners []*wirepb.Listener, sent map[int64]*wirepb.Listener, first bool) *wirepb.Assign {
	if first {
		if len(s.running) > 0 && bytes.Equal(s.running, wire.Digest(listeners)) {
			return &wirepb.Assign{Unchanged: true}
		}
		return &wirepb.Assign{Full: true, Listeners: listeners}
	}
	var m wirepb.Assign
	wanted := make(map[int64]bool, len(listeners))
	for _, l := range listeners {
		wanted[l.MappingId] = true
		if !proto.Equal(l, sent[l.MappingId]) {
			m.Listeners = append(m.Listeners, l)
		}
	}
	for id := range sent {
		if !wanted[id] {
			m.Withdraw = append(m.Withdraw, id)
		}
	}
	if len(m.Listeners) == 0 && len(m.Withdraw) == 0 {
		return nil
	}
	return &m
}

// resetWrong gives the time since which the configuration was wrong, and counts it as
// right from now on.
func (s *session) resetWrong() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.wrong
	s.wrong = time.Time{}
	return since
}

func (s *session) pushed(p push) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pushes) == maxPushes {
		s.pushes = s.pushes[1:]
	}
	s.pushes = append(s.pushes, p)
}

// acknowledged stores what the agent runs, and tells the directory.
func (s *session) acknowledged(ack *wirepb.Ack) {
	s.complain(ack.GetFailures())
	if ack.GetMore() {
		return // the last part says that the agent runs it
	}
	now := s.f.now()
	s.mu.Lock()
	for len(s.pushes) > 0 && s.pushes[0].version <= ack.GetVersion() {
		if at := s.pushes[0].at; !at.IsZero() {
			s.f.metrics.push.Observe(max(0, now.Sub(at).Seconds()))
		}
		s.pushes = s.pushes[1:]
	}
	if len(s.pushes) == 0 {
		s.pushes = nil
	}
	newer := int64(ack.GetVersion()) > s.ack
	if newer {
		s.ack, s.renewAt = int64(ack.GetVersion()), time.Time{}
	}
	s.mu.Unlock()
	if !newer {
		return
	}
	select {
	case s.f.acked <- s:
	default: // the next heartbeat reports it
	}
}

// complain counts and logs the listeners that the agent could not open.
func (s *session) complain(failures []*wirepb.Failure) {
	if len(failures) > 0 && s.complaints == nil {
		s.complaints = rate.NewLimiter(complaintsPerSecond, complaintsAtOnce)
	}
	for _, failure := range failures {
		s.f.metrics.failures.Inc()
		if s.complaints.Allow() {
			s.log.Warn("the agent could not open a listener", "mapping", failure.GetMappingId(),
				"code", clip(failure.GetCode()), "message", netaddr.Masked(clip(failure.GetMessage())))
		}
	}
}
