package forwarder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Between accepting a stream and its Open.
const openTimeout = 10 * time.Second

// forward is one stream of a source agent and its continuation to the target
// agent. It is among its mapping's live ones from the moment it was authorised,
// so that a record that ends the mapping finds it in whatever state it is.
type forward struct {
	mapping *mappingRoute
	source  *session
	target  *session
	service string

	mu    sync.Mutex
	ends  []transport.Stream
	ended wire.Code // why it was reset, "" = it was not
}

// admit authorises a stream from this side's own records and counts it. Nothing
// but the mapping's id comes from the agent.
func (r *routes) admit(source *session, mappingID int64) (*forward, wire.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[source.client]
	if c == nil || c.session != source {
		return nil, wire.Superseded
	}
	m := c.mappings[mappingID]
	if m == nil || m.State.SourceClientID != source.client {
		return nil, wire.NoSuchMapping // also when it is somebody else's: that is not theirs to know
	}
	if code := r.usable(m); code != "" {
		return nil, code
	}
	for _, account := range m.State.Accounts() {
		l := r.limits[account]
		if l == nil {
			return nil, wire.Internal // limits that are not known are not taken for none
		}
		if most := l.State.Limits.MaxConnectionsPerMapping; most != nil && int64(len(m.live)) >= *most {
			return nil, wire.QuotaConnections
		}
	}
	target := r.clients[m.State.TargetClientID]
	if target == nil {
		return nil, wire.TargetOffline
	}
	f := &forward{mapping: m, source: source, target: target.session, service: m.State.Service()}
	m.live[f] = struct{}{}
	return f, ""
}

// release takes an ended stream out of its mapping's live ones.
func (r *routes) release(f *forward) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(f.mapping.live, f)
}

// attach adds a stream to what reset ends. It reports false, and resets the
// stream, when it is too late.
func (f *forward) attach(stream transport.Stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != "" {
		stream.Reset()
		return false
	}
	f.ends = append(f.ends, stream)
	return true
}

// reset ends both streams at once.
func (f *forward) reset(code wire.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended == "" {
		f.ended = code
	}
	for _, stream := range f.ends {
		stream.Reset()
	}
}

// reason gives why the stream was reset, or err.
func (f *forward) reason(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != "" {
		return f.ended
	}
	return err
}

// serveStream takes one stream of the agent from its Open until its bytes flow.
// From then on it has no goroutine, only what wakes when there is something to
// move: an idle connection costs no stack here.
func (s *session) serveStream(stream transport.Stream) {
	s.f.inFlight.Add(1)
	var f *forward
	var target transport.Stream
	defer func() {
		if target == nil { // also after a panic
			s.over(f, stream)
		}
	}()
	if f, target = s.answer(stream); target == nil {
		return
	}
	s.f.tasks.Add(1) // this runs in a task, so the number is not 0 and Close waits
	transport.Join(stream, target, f.mapping.meter.count, func(toTarget, toSource int64, err error) {
		defer s.f.tasks.Done()
		defer s.f.survive()
		defer s.over(f, stream)
		s.ended(f, toTarget, toSource, err)
	})
}

// over gives back what a stream held. f is nil when it was never authorised.
func (s *session) over(f *forward, stream transport.Stream) {
	if f != nil {
		s.f.routes.release(f)
	}
	stream.Close() // does nothing to a stream that has ended
	s.f.inFlight.Add(-1)
}

// answer reads the Open, and says yes when the target agent has reached the
// service. Without a target it has said no. The forward, if there is one, is to
// be released.
func (s *session) answer(stream transport.Stream) (f *forward, target transport.Stream) {
	defer func() { <-s.opening }()
	stream.SetReadDeadline(time.Now().Add(openTimeout))
	open, err := wire.ReadOpen(stream)
	if err == nil {
		stream.SetReadDeadline(time.Time{})
		f, target, err = s.join(stream, open)
	} else if !errors.Is(err, wire.Malformed) {
		stream.Reset()
		return nil, nil
	}
	if err != nil {
		if f != nil {
			s.f.routes.release(f) // what is refused counts no longer than that
		}
		s.refuse(stream, err)
		return nil, nil
	}
	s.f.metrics.opens.Inc()
	if err := wire.WriteOpened(stream, nil); err != nil {
		stream.Reset()
		target.Reset()
		return f, nil
	}
	return f, target
}

// join authorises the stream and opens its continuation to the target agent. It
// returns when the target agent has reached the service or said why not.
func (s *session) join(stream transport.Stream, open *wirepb.Open) (*forward, transport.Stream, error) {
	if s.f.draining.Load() {
		return nil, nil, wire.NodeDraining
	}
	f, code := s.f.routes.admit(s, open.GetMappingId())
	if code != "" {
		return nil, nil, code
	}
	if !f.attach(stream) {
		return f, nil, f.reason(nil)
	}
	ctx, cancel := context.WithTimeout(s.f.ctx, s.f.limits.Open)
	defer cancel()
	target, err := f.target.link.Open(ctx)
	if err != nil {
		return f, nil, f.reason(wire.TargetOffline)
	}
	if !f.attach(target) {
		return f, nil, f.reason(nil)
	}
	deadline, _ := ctx.Deadline()
	target.SetDeadline(deadline)
	err = wire.WriteOpen(target, &wirepb.Open{MappingId: open.GetMappingId(), Peer: clip(open.GetPeer()),
		Service: f.service, Trace: clip(open.GetTrace())})
	if err == nil {
		err = wire.ReadOpened(target)
	}
	if err == nil {
		target.SetDeadline(time.Time{})
		return f, target, nil
	}
	target.Reset()
	var refusal *wire.Refusal
	switch {
	case errors.As(err, &refusal):
	case isTimeout(err):
		err = wire.DialTimeout
	default:
		err = wire.TargetOffline // its session ended under the stream
	}
	return f, nil, f.reason(err)
}

// clip bounds what an agent says for the other's log.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 256)], "") }

// refuse answers no, and lets the agent read that before the stream ends: the
// data that the agent sent behind its Open is still on the way.
func (s *session) refuse(stream transport.Stream, reason error) {
	s.f.metrics.opensNo.WithLabelValues(label(wire.CodeOf(reason))).Inc()
	stream.SetDeadline(time.Now().Add(farewellTime))
	if wire.WriteOpened(stream, reason) != nil || stream.CloseWrite() != nil {
		stream.Reset()
		return
	}
	// Until the agent closes, or too much comes from one that does not listen.
	if _, err := io.CopyN(io.Discard, stream, 256<<10); err != io.EOF {
		stream.Reset()
	}
}

// label bounds the values of a metric's label: codes come from agents too.
func label(code wire.Code) string {
	if code.Known() {
		return string(code)
	}
	return "other"
}

// ended notes the end of a stream.
func (s *session) ended(f *forward, toTarget, toSource int64, err error) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("stream ended", "mapping", f.mapping.State.ID, "to_target", toTarget, "to_source", toSource,
			"error", f.reason(err))
	}
}
