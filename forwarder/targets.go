package forwarder

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A mapping with several targets has each of its streams opened to one of them: to those
// that answered lately before the others, to those that are connected here before those
// behind a bridge, and of these to the least loaded. One that does not answer is passed
// over before the visitor notices.

const (
	// A target that did not answer is the last to be tried until it is found to answer
	// again. It is asked after a pause, which doubles, for as long as visitors come.
	firstPause = 2 * time.Second
	lastPause  = 30 * time.Second
	askedFor   = 5 * time.Minute // after the last visitor
)

// targetKey tells the targets of a mapping apart.
type targetKey struct {
	client int64
	target string
}

// targetLoad is what this forwarder knows of one target; guarded by routes.mu.
type targetLoad struct {
	live    int       // streams
	opened  int       // streams so far, which orders those that have as many
	down    bool      // it did not answer
	asking  bool      // somebody looks whether it answers again
	visited time.Time // when a visitor last came to the mapping, while it is down

	// Of a mapping with a health check; see health.go.
	looking   bool      // somebody looks at it now
	seen      bool      // somebody has
	next      time.Time // when it is to be looked at again
	good, bad int       // looks in a row
}

// choice is one target that a stream may be opened to.
type choice struct {
	client  int64
	target  string // as the list has it
	index   uint32 // in the list, from 1
	service domain.Service
	shape   shape
	weight  int
	load    *targetLoad
}

// shape is what the target agent is asked for.
type shape struct{ service, protocol string }

// choices gives the targets of a mapping that has several, the best first, for the nth of
// its public ports. The lock is held.
func (r *routes) choices(m *mappingRoute, nth int) (all []choice) {
	if len(m.State.Targets) < 2 {
		return nil
	}
	all = r.targets(m, nth)
	now := time.Now()
	for _, c := range all {
		c.load.visited = now
	}
	per := func(n int, c choice) float64 { return float64(n) / float64(c.weight) }
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		return cmp.Or(
			flag(a.load.down)-flag(b.load.down),
			flag(r.clients[a.client] == nil)-flag(r.clients[b.client] == nil),
			cmp.Compare(per(a.load.live, a), per(b.load.live, b)),
			cmp.Compare(per(a.load.opened, a), per(b.load.opened, b)))
	})
	return all
}

// targets gives the targets of a mapping in their order, also when there is one only, for
// the nth of its public ports. The lock is held.
func (r *routes) targets(m *mappingRoute, nth int) (all []choice) {
	several := len(m.State.Targets) > 0
	for i, t := range m.State.AllTargets() {
		key, service, index := targetKey{t.ClientID, t.Target}, t.Service(), uint32(i+1)
		if !several {
			service, index = m.State.Service, 0
		}
		if m.targets == nil {
			m.targets = map[targetKey]*targetLoad{}
		}
		if m.targets[key] == nil {
			m.targets[key] = &targetLoad{}
		}
		all = append(all, choice{t.ClientID, t.Target, index, service, shapeOf(m, service, nth), t.Share(), m.targets[key]})
	}
	if len(m.targets) > 2*domain.MaxTargets { // of lists that there were
		maps.DeleteFunc(m.targets, func(key targetKey, l *targetLoad) bool {
			return l.live == 0 && !slices.ContainsFunc(all, func(c choice) bool { return c.load == l })
		})
	}
	return all
}

// shapeOf says what a target agent is asked for, for one service of a mapping and the
// nth of its public ports.
func shapeOf(m *mappingRoute, s domain.Service, nth int) shape {
	s = s.At(nth)
	of := domain.Mapping{Protocol: m.State.Protocol, Service: s}
	return shape{s.Address(), of.Carried()}
}

// lean puts a stream's weight on a target, and takes it off the one before. nil is none.
// The lock is held.
func (f *forward) lean(on *targetLoad) {
	if f.load != nil {
		f.load.live--
	}
	if f.load = on; on != nil {
		on.live++
	}
}

// choose aims a stream at a target.
func (r *routes) choose(f *forward, c choice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.shape, f.index = c.shape, c.index
	f.target = nil
	if client := r.clients[c.client]; client != nil {
		f.target = client.session
	}
	if _, live := f.mapping.live[f]; live {
		f.lean(c.load)
	}
}

// answered notes that a target has answered.
func (r *routes) answered(c choice, visitor bool) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if visitor {
		c.load.opened++
	}
	if c.load.seen && c.load.down { // its health check decides
		return false
	}
	again, c.load.down = c.load.down, false
	return again
}

// silent notes that a target has not answered. first tells that nobody looks yet whether
// it does again.
func (r *routes) silent(c choice) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.load.down = true
	if c.load.seen { // its health check finds out
		c.load.good = 0
		return false
	}
	first = !c.load.asking
	c.load.asking = true
	return first
}

// passOver notes that a target has not answered, and has it asked until it does again.
func (f *Forwarder) passOver(fwd *forward, c choice, err error) {
	f.metrics.skipped.Inc()
	if !f.routes.silent(c) {
		return
	}
	m := fwd.mapping
	f.log.Info("a target does not answer; others are tried before it", "mapping", m.meter.mapping, "client", c.client, "code", said(err))
	if !f.start(func() { f.askAgain(m, c) }) {
		f.routes.mu.Lock()
		defer f.routes.mu.Unlock()
		c.load.asking = false
	}
}

// askAgain opens the way to a target from time to time, until it answers, or until it is
// none any more, or nobody has come for a while: then the next visitor finds out.
func (f *Forwarder) askAgain(m *mappingRoute, c choice) {
	for pause := firstPause; wait.For(f.ctx, pause); pause = min(2*pause, lastPause) {
		fwd := f.routes.probe(m, c, &fromHealth{f})
		if fwd == nil {
			return
		}
		ctx, cancel := context.WithTimeout(f.ctx, f.limits.Open)
		stream, err := f.reachTarget(ctx, fwd, &wirepb.Open{MappingId: m.meter.mapping}, c.client)
		cancel()
		if err != nil {
			continue
		}
		_ = stream.Reset()
		if f.routes.answered(c, false) {
			f.log.Info("a target answers again", "mapping", m.meter.mapping, "client", c.client)
		}
	}
}

// probe gives a stream that looks whether a target answers; nil when that need not be
// known.
func (r *routes) probe(m *mappingRoute, c choice, from origin) *forward {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.mappings[m.meter.mapping] == m && m.targets[targetKey{c.client, c.target}] == c.load && r.usable(m) == ""
	i := slices.IndexFunc(m.State.Targets, func(t domain.Target) bool { return t.ClientID == c.client && t.Target == c.target })
	if !known || i < 0 || !c.load.down || time.Since(c.load.visited) > askedFor {
		c.load.down, c.load.asking = false, false
		return nil
	}
	f := newForward(m, from)
	f.shape, f.index = c.shape, uint32(i+1)
	if client := r.clients[c.client]; client != nil {
		f.target = client.session
	}
	return f
}

// reachOneOf opens the continuation to the best target that answers.
func (f *Forwarder) reachOneOf(ctx context.Context, fwd *forward, open *wirepb.Open) (transport.Stream, error) {
	deadline, _ := ctx.Deadline()
	var last error
	for i, c := range fwd.choices {
		f.routes.choose(fwd, c)
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(fwd.choices)-i))
		stream, err := f.reachTarget(share, fwd, open, c.client)
		cancel()
		if err == nil {
			f.routes.answered(c, true)
			return stream, nil
		}
		last = err
		if ctx.Err() != nil || !passesOver(err) {
			return nil, err
		}
		f.passOver(fwd, c, err)
	}
	return nil, last
}

// passesOver tells whether another target may be tried: nobody at this one has seen a
// byte.
func passesOver(err error) bool {
	switch wire.CodeOf(err) {
	case wire.DialRefused, wire.DialTimeout, wire.DialUnreachable, wire.TargetOffline, wire.TargetOverloaded, wire.PolicyDenied,
		wire.ProtocolUnavailable, wire.NodeDraining, wire.NoSuchMapping:
		return true
	}
	return false
}
