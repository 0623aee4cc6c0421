package forwarder

import (
	"context"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// hops is how many forwarders a stream has come through when it arrives over a
// bridge. There is no second hop: who does not have the target says so, and the
// source's forwarder looks again.
const hops = 1

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
	fwd, target = f.answer(stream, nil)
	if target != nil {
		toTarget, toSource, err := transport.Splice(stream, target, f.metrics.total)
		f.ended(fwd, toTarget, toSource, err)
	}
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("stream over the bridge is over", "from", from)
	}
}

// receive authorises a stream that came over a bridge. The sender may know a
// record that has not come here yet; it is waited for a moment.
func (f *Forwarder) receive(ctx context.Context, open *wirepb.Open) (*forward, wire.Code) {
	if open.GetHop() != hops {
		return nil, wire.Malformed
	}
	fwd, code, behind := f.routes.receive(open)
	if !behind {
		return fwd, code
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(patience / 60)
	defer tick.Stop()
	for behind {
		if fwd != nil {
			f.routes.release(fwd)
		}
		select {
		case <-tick.C:
			fwd, code, behind = f.routes.receive(open)
		case <-ctx.Done():
			fwd, code, _ = f.routes.receive(open)
			return fwd, code
		}
	}
	return fwd, code
}

// receive is admit for a stream that came over a bridge. behind tells that the
// sender has decided on a newer version of the mapping.
func (r *routes) receive(open *wirepb.Open) (fwd *forward, code wire.Code, behind bool) {
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
	if m.State.TargetClientID != c.State.ID {
		return nil, wire.NoSuchMapping, false
	}
	behind = m.Version < domain.Version(open.GetMappingVersion())
	if code := r.usable(m); code != "" {
		return nil, code, behind
	}
	fwd = &forward{mapping: m, version: m.Version, target: c.session, service: m.State.Service()}
	m.add(fwd)
	return fwd, "", behind
}

// reachPeer opens the continuation to the forwarder that has the target. Where
// that is may have changed since it was looked up, so a forwarder that does not
// have it is a reason to look again, once.
func (f *Forwarder) reachPeer(ctx context.Context, fwd *forward, open *wirepb.Open) (transport.Stream, error) {
	client := fwd.mapping.State.TargetClientID // an id never changes
	var tried place
	for range 2 {
		at, ok := f.places.find(ctx, client, tried)
		if !ok {
			break
		}
		if at.node == f.node {
			target := f.routes.aim(fwd, client) // it has just come here
			if target == nil {
				break
			}
			stream, err := f.reachHere(ctx, fwd, target, open)
			if err == errSessionGone {
				err = wire.TargetOffline
			}
			return stream, err
		}
		stream, err := f.cross(ctx, fwd, at, client, open)
		if err == nil {
			f.metrics.bridged.WithLabelValues("out").Inc()
			return stream, nil
		}
		if code := wire.CodeOf(err); code != wire.TargetOffline && code != wire.NodeDraining {
			return nil, err
		}
		f.places.forget(client, at)
		tried = at
	}
	return nil, wire.TargetOffline
}

// cross opens a stream to another forwarder and has it joined to the target there.
func (f *Forwarder) cross(ctx context.Context, fwd *forward, at place, client int64, open *wirepb.Open) (transport.Stream, error) {
	stream, err := f.peers.Open(ctx, at.node, at.address)
	if err != nil {
		f.log.Debug("opening a stream to another forwarder", "peer", at.node, "address", at.address, "error", err)
		return nil, wire.TargetOffline
	}
	return f.ask(ctx, fwd, stream, &wirepb.Open{MappingId: open.GetMappingId(), Peer: clip(open.GetPeer()),
		Trace: clip(open.GetTrace()), Hop: hops, MappingVersion: uint64(fwd.version), TargetClient: client})
}

// aim gives the stream the target's session that is here now, or nil.
func (r *routes) aim(fwd *forward, client int64) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	fwd.target = nil
	if c := r.clients[client]; c != nil {
		fwd.target = c.session
	}
	return fwd.target
}
