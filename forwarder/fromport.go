package forwarder

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"github.com/tunnox-net/tunnox/proxyheader"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fromPort is the origin of a connection that came in at a public port here. Nothing
// is known of the visitor but the address, and the port is the mapping's.
type fromPort struct {
	f       *Forwarder
	port    int
	mapping int64

	peer, local net.Addr // the visitor, and where that connected to; set by who takes it
}

func (p *fromPort) counts() bool          { return true }
func (p *fromPort) crosses() bool         { return true }
func (p *fromPort) outside() bool         { return true }
func (p *fromPort) late() bool            { return false }
func (p *fromPort) through(*session) bool { return false }
func (p *fromPort) opened()               { p.f.metrics.opens.Inc() }
func (p *fromPort) refused(code wire.Code) {
	p.f.metrics.opensNo.WithLabelValues(label(code)).Inc()
}
func (p *fromPort) logger() *slog.Logger { return p.f.log }

// hold is not needed: whoever waits for the answer of a visitor's stream is this
// forwarder, and ends it.
func (p *fromPort) hold(transport.Stream) (release func()) { return func() {} }

// admit authorises a visitor from the records: the mapping must still be the port's, and
// let the visitor's address in.
func (p *fromPort) admit(_ context.Context, open *wirepb.Open) (*forward, wire.Code) {
	r := p.f.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mappings[p.mapping]
	if m == nil || !m.State.PublicPort.Has(p.port) {
		return nil, wire.NoSuchMapping
	}
	if !admits(m, open) {
		return nil, wire.VisitorDenied
	}
	return r.begin(m, p)
}

// admits tells whether a mapping lets a visitor's address in.
func admits(m *mappingRoute, open *wirepb.Open) bool {
	from, _ := netip.ParseAddrPort(open.GetPeer()) // an address that cannot be read is admitted where all are
	return m.State.Access.Admits(from.Addr())
}

// visitor is a connection from outside, which can be reset as a stream can.
type visitor struct{ *net.TCPConn }

// Reset implements end.
func (v visitor) Reset() error { return transport.Reset(v.TCPConn) }

// OnReset implements leaver.
func (v visitor) OnReset(do func()) (stop func()) { return transport.OnLeave(v.TCPConn, do) }

// heralded is a connection of a proxy that says who the visitor is, before the first
// byte of the visitor.
type heralded interface {
	net.Conn
	Header() (proxyheader.Header, error)
}

// visit takes a connection that came in at a public port, in a goroutine of its own.
func (f *Forwarder) visit(from *fromPort, conn *net.TCPConn, of heralded) {
	serve := func() {
		from.peer, from.local = conn.RemoteAddr(), conn.LocalAddr()
		if of != nil {
			if _, err := of.Header(); err != nil {
				f.visiting.Add(-1)
				f.metrics.opensNo.WithLabelValues(label(wire.Malformed)).Inc()
				f.log.Debug("a proxy did not say for whom it connects", "port", from.port, "from", network(conn.RemoteAddr()), "error", said(err))
				_ = transport.Reset(conn)
				return
			}
			from.peer, from.local = of.RemoteAddr(), of.LocalAddr()
		}
		f.serveVisitor(from, visitor{conn}, conn, func() {})
	}
	if !f.admitVisitor(serve) {
		_ = transport.Reset(conn)
	}
}

// admitVisitor has a visitor served in a goroutine of its own. It reports false when
// there are so many at once that this is an attack, or when the forwarder ends.
func (f *Forwarder) admitVisitor(serve func()) bool {
	if f.visiting.Add(1) > int64(f.limits.VisitorsOpening) || !f.start(serve) {
		f.visiting.Add(-1)
		return false
	}
	return true
}

// serveVisitor opens the way to the service at once, whether or not the visitor says
// anything: many services speak first. A refusal becomes a reset, which is all that
// a TCP client can understand; who cares for more is told by refused. stream ends what
// conn carries.
func (f *Forwarder) serveVisitor(from *fromPort, stream end, conn transport.Duplex, refused func()) {
	f.inFlight.Add(1)
	var fwd *forward
	joined := false
	defer func() {
		f.visiting.Add(-1)
		if !joined { // also after a panic
			refused()
			_ = stream.Reset()
			f.over(fwd, stream)
		}
	}()
	fwd, target, err := f.join(stream, from, &wirepb.Open{MappingId: from.mapping, Peer: from.peer.String(), Local: from.local.String()})
	if err != nil {
		from.refused(wire.CodeOf(err))
		f.log.Debug("a visitor was refused", "mapping", from.mapping, "port", from.port, "error", said(err))
		return
	}
	from.opened()
	joined = true
	f.tasks.Add(1) // this runs in a task, so the number is not 0 and Close waits
	transport.Join(conn, target, fwd.mapping.meter.count, func(toTarget, toSource int64, err error) {
		defer f.tasks.Done()
		defer f.survive()
		defer f.over(fwd, stream)
		f.ended(fwd, toTarget, toSource, err)
	})
}
