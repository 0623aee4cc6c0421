package forwarder

import (
	"context"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fromPeer is the origin of a stream that another forwarder has opened. The stream
// counts there, and goes over no other bridge.
type fromPeer struct {
	f    *Forwarder
	node string // the other forwarder, as it has proved

	// Of the mapping, when it was authorised.
	source, target int64
	port           int    // public
	publicHost     string // the same
}

func (p *fromPeer) counts() bool          { return false }
func (p *fromPeer) crosses() bool         { return false }
func (p *fromPeer) outside() bool         { return false }
func (p *fromPeer) late() bool            { return false }
func (p *fromPeer) through(*session) bool { return false }
func (p *fromPeer) opened()               { p.f.metrics.bridged.WithLabelValues("in").Inc() }
func (p *fromPeer) refused(wire.Code)     {} // the other forwarder counts it
func (p *fromPeer) logger() *slog.Logger  { return p.f.log }

// hold ends the stream with this forwarder: no session here does.
func (p *fromPeer) hold(stream transport.Stream) (release func()) {
	stop := context.AfterFunc(p.f.ctx, func() { stream.Reset() })
	return func() { stop() }
}

// Deliver takes a stream that another forwarder, which has proved to be from, has
// opened to a client that should be connected here. It returns when the stream has
// ended. What the stream may do is decided from this side's own records; the other
// side has decided the same from its own, and counts it against the limits.
func (f *Forwarder) Deliver(from string, stream transport.Stream) {
	if !f.enter() {
		stream.Reset()
		return
	}
	defer f.tasks.Done()
	defer f.survive()
	f.inFlight.Add(1)
	var fwd *forward
	var target transport.Stream
	defer func() { f.over(fwd, stream) }()
	fwd, target = f.answer(stream, &fromPeer{f: f, node: from})
	if target != nil {
		toTarget, toSource, err := transport.Splice(stream, target, f.metrics.total)
		f.ended(fwd, toTarget, toSource, err)
	}
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("stream over the bridge is over", "from", from)
	}
}

// admit authorises a stream of a forwarder that must have the source client. The
// sender may know a record that has not come here yet; it is waited for a moment.
func (p *fromPeer) admit(ctx context.Context, open *wirepb.Open) (*forward, wire.Code) {
	if open.GetHop() != hops {
		return nil, wire.Malformed
	}
	fwd, code := p.receive(ctx, open)
	if code == "" && !p.mayDeliver(ctx) {
		p.f.routes.release(fwd)
		p.f.log.Warn("a forwarder delivers a stream that cannot have begun there", "peer", p.node,
			"client", p.source, "port", p.port, "host", p.publicHost, "mapping", fwd.mapping.meter.mapping)
		return nil, wire.NoSuchMapping
	}
	return fwd, code
}

// mayDeliver tells whether the mapping's source client is connected at the peer, or
// its public port is one of the peer's, or it has a public host and the peer serves
// those, so that a node can only speak for what comes in at it. A directory that is away or has lost what it knew ends nobody's
// connections.
func (p *fromPeer) mayDeliver(ctx context.Context) bool {
	f := p.f
	if f.places == nil {
		return true
	}
	// Others register what a flush took away as soon as they notice, which is a
	// heartbeat after this node has at the latest; within a lease all have.
	if lost := f.lost.Load(); lost != nil && f.now().Sub(*lost) < directory.TTL {
		return true
	}
	if p.source == 0 {
		yes, known := f.places.lets(ctx, p.node, func(n directory.Node) bool {
			if p.publicHost != "" {
				return n.BaseDomain != ""
			}
			return n.HasPort(p.port)
		})
		return yes || !known
	}
	yes, known := f.places.isAt(ctx, p.source, p.node, p.target, f.node)
	return yes || !known
}

// receive authorises a stream whoever sends it.
func (p *fromPeer) receive(ctx context.Context, open *wirepb.Open) (*forward, wire.Code) {
	routes := p.f.routes
	fwd, code, behind := routes.receive(p, open)
	if !behind {
		return fwd, code
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(patience / 60)
	defer tick.Stop()
	for behind {
		if fwd != nil {
			routes.release(fwd)
		}
		select {
		case <-tick.C:
			fwd, code, behind = routes.receive(p, open)
		case <-ctx.Done():
			fwd, code, _ = routes.receive(p, open)
			return fwd, code
		}
	}
	return fwd, code
}

// receive authorises a stream that came over a bridge. behind tells that the sender
// has decided on a newer version of the mapping.
func (r *routes) receive(from *fromPeer, open *wirepb.Open) (fwd *forward, code wire.Code, behind bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[open.GetTargetClient()]
	if c == nil || c.session == nil {
		return nil, wire.TargetOffline, false
	}
	m := c.mappings[open.GetMappingId()]
	if m == nil {
		return nil, wire.NoSuchMapping, true
	}
	behind = m.Version < domain.Version(open.GetMappingVersion())
	service, ok := m.serviceAt(open.GetTargetIndex(), c.State.ID)
	if !ok {
		return nil, wire.NoSuchMapping, behind
	}
	if code := r.usable(m); code != "" {
		return nil, code, behind
	}
	from.source, from.target, from.port, from.publicHost = m.State.SourceClientID, c.State.ID, m.State.PublicPort.First, m.State.PublicHost
	if at := int(open.GetPublicPort()); at != 0 {
		if !m.State.PublicPort.Has(at) { // it was one, or will be
			return nil, wire.NoSuchMapping, behind
		}
		from.port = at
	}
	fwd = newForward(m, from)
	fwd.target, fwd.shape = c.session, shapeOf(m, service, fwd.nth)
	if open.GetCheck() != "" {
		fwd.check = checkOf(&m.State, service)
	}
	m.add(fwd)
	return fwd, "", behind
}

// serviceAt gives the service behind a client at a place of the mapping's list of targets,
// from 1; 0 is the mapping's own.
func (m *mappingRoute) serviceAt(index uint32, client int64) (domain.Service, bool) {
	if index == 0 {
		return m.State.Service, m.State.TargetClientID == client
	}
	if int64(index) > int64(len(m.State.Targets)) || m.State.Targets[index-1].ClientID != client {
		return domain.Service{}, false
	}
	return m.State.Targets[index-1].Service(), true
}
