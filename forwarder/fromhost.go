package forwarder

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fromHost is the origin of a connection to the service of a mapping with a public
// host. Whoever speaks HTTP with visitors here asks for it; one connection may carry
// the requests of several visitors, one after the other. A tls mapping has a connection
// for each visitor.
type fromHost struct {
	f       *Forwarder
	host    string
	mapping int64
}

func (h *fromHost) counts() bool          { return true }
func (h *fromHost) crosses() bool         { return true }
func (h *fromHost) outside() bool         { return true }
func (h *fromHost) through(*session) bool { return false }
func (h *fromHost) opened()               { h.f.metrics.opens.Inc() }
func (h *fromHost) refused(code wire.Code) {
	h.f.metrics.opensNo.WithLabelValues(label(code)).Inc()
}
func (h *fromHost) logger() *slog.Logger { return h.f.log }

// late is true: the visitor's connection was taken before the drain began, and who
// takes visitors' connections takes no new ones from then on.
func (h *fromHost) late() bool { return true }

// hold is not needed: whoever waits for the answer is this forwarder.
func (h *fromHost) hold(transport.Stream) (release func()) { return func() {} }

// admit authorises the connection from the records: the mapping must still be the
// host's. Whoever speaks HTTP with visitors admits each of them; one who is passed through
// is looked at here.
func (h *fromHost) admit(_ context.Context, open *wirepb.Open) (*forward, wire.Code) {
	r := h.f.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mappings[h.mapping]
	if m == nil || m.State.PublicHost != h.host {
		return nil, wire.NoSuchMapping
	}
	if m.State.Protocol == domain.ProtocolTLS && !admits(m, open) {
		return nil, wire.VisitorDenied
	}
	return r.begin(m, h)
}

// DialHost opens a connection to the service of a mapping that Host gave, for a visitor
// at an address. It is counted and limited as a connection at a public port is. The
// error has a [wire.Code].
func (f *Forwarder) DialHost(host string, mapping int64, visitor string) (transport.Stream, error) {
	if !f.enter() {
		return nil, wire.ShuttingDown
	}
	if f.visiting.Add(1) > int64(f.limits.VisitorsOpening) {
		f.visiting.Add(-1)
		f.tasks.Done()
		return nil, wire.TooMany
	}
	f.inFlight.Add(1)
	from := &fromHost{f: f, host: host, mapping: mapping}
	near, far := transport.Pair()
	var fwd *forward
	joined := false
	defer func() {
		f.visiting.Add(-1)
		if !joined { // also after a panic
			_ = near.Reset()
			f.over(fwd, far)
			f.tasks.Done()
		}
	}()
	fwd, target, err := f.join(far, from, &wirepb.Open{MappingId: mapping, Peer: visitor})
	if err != nil {
		from.refused(wire.CodeOf(err))
		return nil, err
	}
	from.opened()
	joined = true
	transport.Join(far, target, fwd.mapping.meter.count, func(toTarget, toSource int64, err error) {
		defer f.tasks.Done()
		defer f.survive()
		defer f.over(fwd, far)
		f.ended(fwd, toTarget, toSource, err)
	})
	return near, nil
}

// PassHost joins a visitor's connection with the service of a mapping that Host gave,
// and sends first, which was read of the connection already, before what follows. It is
// counted and limited as a connection at a public port is. peer is the visitor, and local
// where that connected to, which the service may be told. After an error, which has a
// [wire.Code], the connection is the caller's, as it was; otherwise it is not.
func (f *Forwarder) PassHost(host string, mapping int64, conn *net.TCPConn, peer, local net.Addr, first []byte) error {
	if !f.enter() {
		return wire.ShuttingDown
	}
	if f.visiting.Add(1) > int64(f.limits.VisitorsOpening) {
		f.visiting.Add(-1)
		f.tasks.Done()
		return wire.TooMany
	}
	f.inFlight.Add(1)
	from := &fromHost{f: f, host: host, mapping: mapping}
	stream := visitor{conn}
	var fwd *forward
	var target transport.Stream
	joined := false
	defer func() {
		f.visiting.Add(-1)
		if !joined { // also after a panic
			if target != nil {
				_ = target.Reset()
			}
			if fwd != nil {
				f.routes.release(fwd)
			}
			f.inFlight.Add(-1)
			f.tasks.Done()
		}
	}()
	var err error
	fwd, target, err = f.join(stream, from, &wirepb.Open{MappingId: mapping, Peer: peer.String(), Local: local.String()})
	if err == nil {
		// The target's answer has opened a window that is larger than any hello.
		_ = target.SetWriteDeadline(time.Now().Add(passPatience))
		if _, err = target.Write(first); err != nil {
			err = wire.TargetOverloaded
		}
	}
	if err != nil {
		from.refused(wire.CodeOf(err))
		return err
	}
	fwd.mapping.meter.count.AToB(len(first))
	from.opened()
	joined = true
	transport.Join(conn, target, fwd.mapping.meter.count, func(toTarget, toSource int64, err error) {
		defer f.tasks.Done()
		defer f.survive()
		defer f.over(fwd, stream)
		f.ended(fwd, toTarget+int64(len(first)), toSource, err)
	})
	return nil
}

// passPatience bounds how long a target may take for what was read of a visitor.
const passPatience = 10 * time.Second
