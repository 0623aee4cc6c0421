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

// hops is how many forwarders a stream has come through when it arrives over a bridge.
// There is no second hop: a forwarder without the target says so, and the source's
// forwarder looks again.
const hops = 1

const (
	// After doubtAfter without an answer this forwarder asks the other one whether it
	// is alive, and waits as long again. A service may take its time, but nobody should
	// wait for a machine that hangs.
	doubtAfter = 300 * time.Millisecond
	// The same, if no other way is known.
	aloneAfter = 2 * time.Second
)

// reachPeer opens the continuation at a forwarder that has the target. The target may
// have moved since the lookup, so if no forwarder has it, it is looked up again. A
// target whose node drains will soon be at another node, and reachPeer waits for it.
func (f *Forwarder) reachPeer(ctx context.Context, fwd *forward, open *wirepb.Open, client int64) (transport.Stream, error) {
	var tried []place
	var until time.Time // zero: nothing shows that the target is moving
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

// alternatives are the other places to try.
type alternatives struct {
	client int64
	tried  []place // that place, and those before it
	more   bool    // more places are known already
}

// reachPlace opens the continuation at one place, which may be this node by now.
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

// elsewhere reports whether a stream that failed in this way may be opened at another
// place, because no service has seen it.
func elsewhere(err error) bool {
	return errors.Is(err, wire.TargetOffline) || errors.Is(err, wire.NodeDraining)
}

// cross opens a stream to another forwarder, which joins it to the target there.
func (f *Forwarder) cross(ctx context.Context, fwd *forward, at place, open *wirepb.Open, or alternatives) (transport.Stream, error) {
	stream, err := f.crossTo(ctx, at, or.more)
	f.places.suspect(at.node, err == nil)
	if err != nil {
		f.log.Debug("opening a stream to another forwarder", "peer", at.node, "address", at.address, "error", err)
		return nil, wire.TargetOffline
	}
	var decided atomic.Bool // by the answer, or by giving up: a stream with an answer is not reset
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
	answered, err := f.ask(ctx, fwd, stream, &wirepb.Open{MappingId: open.GetMappingId(), Peer: clip(open.GetPeer()), Local: fwd.local(open),
		Protocol: fwd.protocol, Destination: fwd.destination(), Trace: clip(open.GetTrace()), Hop: hops, MappingVersion: uint64(fwd.version), TargetClient: or.client, TargetIndex: fwd.index, PublicPort: fwd.port, Check: fwd.check,
		Seal: open.GetSeal(), ListenerVersion: open.GetListenerVersion()})
	if err == nil && !decided.CompareAndSwap(false, true) {
		fwd.detach()
		return nil, wire.TargetOffline
	}
	return answered, err
}

// crossTo opens a stream to another forwarder. A link that has to be made first is made
// even if nobody waits for it any more.
func (f *Forwarder) crossTo(ctx context.Context, at place, more bool) (transport.Stream, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*doubtAfter)
		defer cancel()
	}
	return f.peers.Open(ctx, at.node, at.address)
}

// hangs reports that another forwarder does not answer at all, and that the client must
// be looked for elsewhere. While there is no other place it waits for one, or for the
// answer.
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

// answers reports whether another forwarder answers at all. One probe serves all
// streams that wait for it.
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

// aim sets the target's present session here as the stream's target, and gives it, or
// nil.
func (r *routes) aim(fwd *forward, client int64) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	fwd.target = nil
	if c := r.clients[client]; c != nil {
		fwd.target = c.session
	}
	return fwd.target
}
