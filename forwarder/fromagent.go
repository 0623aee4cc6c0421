package forwarder

import (
	"context"
	"log/slog"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fromAgent is the origin of a stream that a source agent has opened in its session.
type fromAgent struct{ *session }

func (a fromAgent) counts() bool            { return true }
func (a fromAgent) crosses() bool           { return true }
func (a fromAgent) outside() bool           { return false }
func (a fromAgent) late() bool              { return false }
func (a fromAgent) through(s *session) bool { return a.session == s }
func (a fromAgent) opened()                 { a.f.metrics.opens.Inc() }
func (a fromAgent) refused(code wire.Code)  { a.f.metrics.opensNo.WithLabelValues(label(code)).Inc() }
func (a fromAgent) logger() *slog.Logger    { return a.log }

// hold leaves the stream to the session, which ends it, and counts it as opening.
func (a fromAgent) hold(transport.Stream) (release func()) {
	return func() { a.opening.Add(-1) }
}

// admit takes nothing but the mapping's id from the agent.
func (a fromAgent) admit(_ context.Context, open *wirepb.Open) (*forward, wire.Code) {
	return a.f.routes.admit(a.session, open.GetMappingId())
}

// admit authorises a stream of a source agent, and counts it.
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
	return r.begin(m, fromAgent{source})
}

// serveStream takes one stream of the agent from its Open until its bytes flow.
// From then on it has no goroutine, only what wakes when there is something to
// move: an idle connection costs no stack here.
func (s *session) serveStream(stream transport.Stream) {
	f := s.f
	f.inFlight.Add(1)
	var fwd *forward
	var target transport.Stream
	defer func() {
		if target == nil { // also after a panic
			f.over(fwd, stream)
		}
	}()
	if fwd, target = f.answer(stream, fromAgent{s}); target == nil {
		return
	}
	f.tasks.Add(1) // this runs in a task, so the number is not 0 and Close waits
	transport.Join(stream, target, fwd.mapping.meter.count, func(toTarget, toSource int64, err error) {
		defer f.tasks.Done()
		defer f.survive()
		defer f.over(fwd, stream)
		there, back := fwd.part(err)
		f.ended(fwd, toTarget+there, toSource+back, err)
	})
}
