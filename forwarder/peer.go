package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// hops is how many forwarders a stream has come through when it arrives over a
// bridge. There is no second hop: who does not have the target says so, and the
// source's forwarder looks again.
const hops = 1

const (
	// Without an answer for doubtAfter another forwarder is asked whether it is there,
	// for as long again. A service may take its time; a machine that hangs is not
	// waited for.
	doubtAfter = 300 * time.Millisecond
	// The same, when there is nowhere else to go as far as is known.
	aloneAfter = 2 * time.Second
)

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
	fwd, target = f.answer(stream, nil, from)
	if target != nil {
		toTarget, toSource, err := transport.Splice(stream, target, f.metrics.total)
		f.ended(fwd, toTarget, toSource, err)
	}
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("stream over the bridge is over", "from", from)
	}
}

// receive authorises a stream that came over a bridge, from a forwarder that must
// have the source client. The sender may know a record that has not come here yet;
// it is waited for a moment.
func (f *Forwarder) receive(ctx context.Context, from string, open *wirepb.Open) (*forward, wire.Code) {
	if open.GetHop() != hops {
		return nil, wire.Malformed
	}
	fwd, code := f.receiveMapping(ctx, open)
	if code == "" && !f.mayDeliver(ctx, from, fwd) {
		f.routes.release(fwd)
		f.log.Warn("a forwarder delivers a stream of a client that is not connected there", "peer", from,
			"client", fwd.mapping.State.SourceClientID, "mapping", fwd.mapping.State.ID)
		return nil, wire.NoSuchMapping
	}
	return fwd, code
}

// mayDeliver tells whether the mapping's source client is connected at the node
// from, so that a node can only speak for its own clients. A directory that is
// away or has lost what it knew ends nobody's connections.
func (f *Forwarder) mayDeliver(ctx context.Context, from string, fwd *forward) bool {
	if f.places == nil {
		return true
	}
	// Others register what a flush took away as soon as they notice, which is a
	// heartbeat after this node has at the latest; within a lease all have.
	if lost := f.lost.Load(); lost != 0 && f.now().Sub(time.Unix(0, lost)) < directory.TTL {
		return true
	}
	source, target := fwd.mapping.State.SourceClientID, fwd.mapping.State.TargetClientID // ids never change
	yes, known := f.places.isAt(ctx, source, from, target, f.node)
	return yes || !known
}

// receiveMapping is receive without its source.
func (f *Forwarder) receiveMapping(ctx context.Context, open *wirepb.Open) (*forward, wire.Code) {
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

// reachPeer opens the continuation to a forwarder that has the target. Where that
// is may have changed since it was looked up, so when nobody has it, it is looked
// up again. A target whose node drains is about to be somewhere else, and is
// waited for.
func (f *Forwarder) reachPeer(ctx context.Context, fwd *forward, open *wirepb.Open) (transport.Stream, error) {
	client := fwd.mapping.State.TargetClientID // an id never changes
	var tried []place
	var until time.Time // zero: the target is not known to be on its way
	for again := false; ; again = true {
		places, asked := f.places.find(ctx, client, again)
		for i, at := range places {
			if slices.Contains(tried, at) {
				continue
			}
			tried = append(tried, at)
			stream, err := f.reachPlace(ctx, fwd, at, open, alternatives{client, tried, i+1 < len(places)})
			if err == nil || !elsewhere(err) {
				return stream, err
			}
			if errors.Is(err, wire.NodeDraining) && until.IsZero() {
				until = time.Now().Add(movingTime)
			}
		}
		switch {
		case !until.IsZero() && time.Now().Before(until):
			if !wait(ctx, movingPause) {
				return nil, wire.TargetOffline
			}
		case asked:
			return nil, wire.TargetOffline
		}
	}
}

// alternatives are the places to try besides one.
type alternatives struct {
	client int64
	tried  []place // that one, and those before it
	more   bool    // are known already
}

// reachPlace opens the continuation to one place, which may be here by now.
func (f *Forwarder) reachPlace(ctx context.Context, fwd *forward, at place, open *wirepb.Open, or alternatives) (transport.Stream, error) {
	if at.node == f.node {
		target := f.routes.aim(fwd, or.client)
		if target == nil {
			return nil, wire.TargetOffline
		}
		return f.reachHere(ctx, fwd, target, open)
	}
	stream, err := f.cross(ctx, fwd, at, open, or)
	switch {
	case err == nil:
		f.metrics.bridged.WithLabelValues("out").Inc()
	case elsewhere(err):
		f.places.forget(or.client, at)
	}
	return stream, err
}

// elsewhere tells whether a stream that failed so may be opened somewhere else: no
// service has heard of it.
func elsewhere(err error) bool {
	return errors.Is(err, wire.TargetOffline) || errors.Is(err, wire.NodeDraining)
}

// wait pauses; it reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// cross opens a stream to another forwarder and has it joined to the target there.
func (f *Forwarder) cross(ctx context.Context, fwd *forward, at place, open *wirepb.Open, or alternatives) (transport.Stream, error) {
	stream, err := f.crossTo(ctx, at, or.more)
	f.places.suspect(at.node, err == nil)
	if err != nil {
		f.log.Debug("opening a stream to another forwarder", "peer", at.node, "address", at.address, "error", err)
		return nil, wire.TargetOffline
	}
	var decided atomic.Bool // by the answer, or by giving up: a stream that was answered is not reset
	doubting, stop := context.WithCancel(ctx)
	defer stop()
	patience := aloneAfter
	if or.more {
		patience = doubtAfter
	}
	doubt := time.AfterFunc(patience, func() {
		if f.hangs(doubting, at, or) && decided.CompareAndSwap(false, true) {
			stream.Reset()
		}
	})
	defer doubt.Stop()
	answered, err := f.ask(ctx, fwd, stream, &wirepb.Open{MappingId: open.GetMappingId(), Peer: clip(open.GetPeer()),
		Trace: clip(open.GetTrace()), Hop: hops, MappingVersion: uint64(fwd.version), TargetClient: or.client})
	if err == nil && !decided.CompareAndSwap(false, true) {
		fwd.detach()
		return nil, wire.TargetOffline
	}
	return answered, err
}

// crossTo opens a stream to another forwarder. A link that has to be made first is
// made whether or not it is waited for.
func (f *Forwarder) crossTo(ctx context.Context, at place, more bool) (transport.Stream, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*doubtAfter)
		defer cancel()
	}
	return f.peers.Open(ctx, at.node, at.address)
}

// hangs tells that another forwarder does not answer anything, and that the client
// is to be looked for elsewhere. While there is nowhere else it waits for that, or
// for the answer.
func (f *Forwarder) hangs(ctx context.Context, at place, or alternatives) bool {
	for pause := doubtAfter; !f.answers(at); pause = min(2*pause, movingTime) {
		if ctx.Err() != nil {
			return false
		}
		f.places.suspect(at.node, false)
		if or.more {
			return true
		}
		if !wait(ctx, pause) {
			return false
		}
		places, _ := f.places.find(ctx, or.client, true)
		or.more = slices.ContainsFunc(places, func(other place) bool { return !slices.Contains(or.tried, other) })
	}
	return false
}

// answers tells whether another forwarder answers anything at all. It is asked
// once for all streams that wait for it.
func (f *Forwarder) answers(at place) bool {
	yes, _, _ := f.probes.Do(at.node, func() (any, error) { return f.probe(at), nil })
	return yes.(bool)
}

// probe asks another forwarder: an Open without its hop is refused at once.
func (f *Forwarder) probe(at place) bool {
	ctx, cancel := context.WithTimeout(f.ctx, doubtAfter)
	defer cancel()
	stream, err := f.peers.Open(ctx, at.node, at.address)
	if err != nil {
		return false
	}
	defer stream.Reset()
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	if wire.WriteOpen(stream, &wirepb.Open{}) != nil {
		return false
	}
	var refusal *wire.Refusal
	return errors.As(wire.ReadOpened(stream), &refusal)
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
