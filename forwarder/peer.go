package forwarder

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
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
			if !wait.For(ctx, movingPause) {
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
		Protocol: fwd.protocol, Destination: fwd.destination(), Trace: clip(open.GetTrace()), Hop: hops, MappingVersion: uint64(fwd.version), TargetClient: or.client})
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
		if !wait.For(ctx, pause) {
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
