package forwarder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Between accepting a stream and its Open.
const openTimeout = 10 * time.Second

// forward is one stream of a source agent and its continuation to the target
// agent. It is among its mapping's live ones from the moment it was authorised,
// so that a record that ends the mapping finds it in whatever state it is.
//
// Where the agents are connected to two forwarders there are two of it, one at
// each, and the continuation of the first is the stream of the second.
type forward struct {
	mapping *mappingRoute
	version domain.Version // of the mapping, when it was authorised
	origin  origin
	target  *session // nil: the target agent is connected to another forwarder; guarded by routes.mu
	shape
	chosen   bool        // service is what the client asks for, and not the mapping's
	port     uint32      // where it came in, of a mapping with several public ports; else 0
	nth      int         // of these ports, from 0
	of       string      // the protocol of the mapping
	choices  []choice    // of a mapping with several targets
	check    string      // it only looks whether the service is there: wire.Open.check
	index    uint32      // of the target, in the mapping's list, from 1; 0 = there is no list
	load     *targetLoad // of the target; guarded by routes.mu
	options  string      // what the target agent must know of the mapping's options
	heralded bool        // the service is told the visitor's address
	sealed   bool        // the agents must encrypt from one to the other
	source   int64       // client, 0 = none
	seal     []byte      // the target agent's message for the source agent; of ask
	ticket   uint64      // by which its agents can ask for lanes, 0 = they cannot; of reachHere
	at       *session    // the target agent's, with a ticket
	limit    int64       // of the mapping's connections, -1 = none
	held     bool        // it has its place under the limit; guarded by portions.mu, like the next
	over     bool        // it has left its mapping's live ones
	joined   atomic.Bool // the target has said yes; until then it may be looked for elsewhere

	mu    sync.Mutex
	ends  []end
	ended wire.Code // why it was reset, "" = it was not
	lanes *lanePair // where its bytes go; nil: over its streams
	// parted says that its streams have ended: it gets no lanes any more.
	parted bool
}

// end is one side of a stream here: another stream, or a visitor's connection.
type end interface {
	Close() error
	Reset() error
}

// leaver is an end that tells when nobody waits there any more: it calls do, until stop.
// A flow of datagrams has nobody who could leave.
type leaver interface {
	OnReset(do func()) (stop func())
}

// newForward is a stream of a mapping as the records are at this moment.
func newForward(m *mappingRoute, from origin) *forward {
	o := forTarget(m.State.Options)
	port, nth := portOf(m, from)
	return &forward{mapping: m, version: m.Version, origin: from, port: port, nth: nth, shape: shapeOf(m, m.State.Service, nth), of: string(m.State.Protocol),
		heralded: o.ProxyProtocol != "", options: optionsText(o), sealed: m.State.Options.EndToEnd(), source: m.State.SourceClientID}
}

// portOf tells which of a mapping's public ports a stream came in at, for who has the
// target: its number when there are several, else 0; and its place among them, from 0.
func portOf(m *mappingRoute, from origin) (number uint32, nth int) {
	ports := m.State.PublicPort
	if ports.Count() < 2 {
		return 0, 0
	}
	at := ports.First
	switch from := from.(type) {
	case *fromPort:
		at = from.port
	case *fromPeer:
		at = from.port
	}
	return uint32(at), at - ports.First
}

// forTarget gives the options that the target agent must know.
func forTarget(o domain.Options) domain.Options {
	if o.ProxyProtocol == "none" {
		o.ProxyProtocol = ""
	}
	return domain.Options{Files: o.Files, ProxyProtocol: o.ProxyProtocol}
}

// begin authorises a stream of a mapping that begins here, and counts it. The lock
// is held.
func (r *routes) begin(m *mappingRoute, from origin) (*forward, wire.Code) {
	if code := r.usable(m); code != "" {
		return nil, code
	}
	limit, known := r.limit(m)
	switch {
	case !known:
		return nil, wire.Internal // limits that are not known are not taken for none
	case limit < 0:
		m.adopted = false
	case r.portions != nil:
		r.adopt(m, limit)
	case int64(m.begun)+m.meter.away(time.Now()) >= limit:
		m.meter.touch() // to hear what the others have
		return nil, wire.QuotaConnections
	}
	if code := m.meter.payer.refuses(); code != "" {
		return nil, code
	}
	f := newForward(m, from)
	f.limit, f.choices = limit, r.choices(m, f.nth)
	if target := r.clients[m.State.TargetClientID]; target != nil {
		f.target = target.session
	}
	m.add(f)
	return f, ""
}

// choose takes over the destination that a client asks for, where the mapping leaves it
// to the client. The target agent's policy decides about it.
func (f *forward) choose(open *wirepb.Open) wire.Code {
	if f.protocol != string(domain.ProtocolSOCKS5) {
		return ""
	}
	if open.GetProtocol() == domain.CarriedAssociation { // each datagram says where it goes
		f.protocol, f.service = domain.CarriedAssociation, ""
		return ""
	}
	host, port, err := net.SplitHostPort(open.GetDestination())
	if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil || n == 0 || host == "" || len(host) > 255 {
		return wire.Malformed
	}
	f.service, f.chosen = net.JoinHostPort(clip(host), port), true
	return ""
}

// destination is what another forwarder must be told of the service; it has its own
// records of the mapping's.
func (f *forward) destination() string {
	if f.chosen {
		return f.service
	}
	return ""
}

// limit gives the lowest limit of a mapping's connections, -1 = none. known is false
// when an account is not known here.
func (r *routes) limit(m *mappingRoute) (limit int64, known bool) {
	limit = -1
	for _, account := range m.State.Accounts() {
		l := r.limits[account]
		if l == nil {
			return 0, false
		}
		if most := l.State.Limits.MaxConnectionsPerMapping; most != nil && (limit < 0 || *most < limit) {
			limit = *most
		}
	}
	return limit, true
}

// adopt has the streams of a mapping count that began when it had no limit.
func (r *routes) adopt(m *mappingRoute, limit int64) {
	if m.adopted {
		return
	}
	m.portions, m.adopted = r.portions, true
	var open []*forward
	for f := range m.live {
		if f.origin.counts() && f.limit < 0 {
			open = append(open, f)
		}
	}
	r.portions.adopt(m.meter.mapping, limit, open)
}

// release takes an ended stream out of its mapping's live ones.
func (r *routes) release(f *forward) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.mapping.remove(f)
}

// attach adds a stream to what reset ends. It reports false, and resets the
// stream, when it is too late.
func (f *forward) attach(stream end) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != "" {
		stream.Reset()
		return false
	}
	f.ends = append(f.ends, stream)
	return true
}

// detach is for the stream attached last, which did not come to anything.
func (f *forward) detach() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends = f.ends[:len(f.ends)-1]
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

// resetTarget ends the continuation that is being opened, and not the stream.
func (f *forward) resetTarget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, stream := range f.ends {
		if i > 0 {
			stream.Reset()
		}
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

// over gives back what a stream held. fwd is nil when it was never authorised.
func (f *Forwarder) over(fwd *forward, stream end) {
	if fwd != nil {
		f.routes.release(fwd)
		fwd.forget()
	}
	stream.Close() // does nothing to a stream that has ended
	f.inFlight.Add(-1)
}

// answer reads the Open, and says yes when the target agent has reached the
// service. Without a target it has said no. The forward, if there is one, is to
// be released.
func (f *Forwarder) answer(stream transport.Stream, from origin) (fwd *forward, target transport.Stream) {
	defer from.hold(stream)()
	stream.SetReadDeadline(time.Now().Add(openTimeout))
	open, err := wire.ReadOpen(stream)
	if agent, ok := from.(fromAgent); ok && err == nil && open.GetPromote() != nil {
		stream.SetReadDeadline(time.Time{})
		agent.promote(stream, open.GetPromote())
		return nil, nil
	}
	if err == nil {
		stream.SetReadDeadline(time.Time{})
		fwd, target, err = f.join(stream, from, open)
	} else if !errors.Is(err, wire.Malformed) {
		stream.Reset()
		return nil, nil
	}
	if err != nil {
		if fwd != nil {
			f.routes.release(fwd) // what is refused counts no longer than that
		}
		from.refused(wire.CodeOf(err))
		refuse(stream, err)
		return nil, nil
	}
	from.opened()
	if agent, ok := from.(fromAgent); ok && fwd.ticket != 0 {
		agent.note(fwd)
	}
	if err := wire.WriteYes(stream, &wirepb.Opened{Seal: fwd.seal, Ticket: fwd.ticket}); err != nil {
		stream.Reset()
		target.Reset()
		return fwd, nil
	}
	return fwd, target
}

// join authorises the stream and opens its continuation to the target agent. It
// returns when the target agent has reached the service or said why not.
func (f *Forwarder) join(stream end, from origin, open *wirepb.Open) (*forward, transport.Stream, error) {
	if f.draining.Load() && !from.late() {
		return nil, nil, wire.NodeDraining
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.limits.Open)
	defer cancel()
	fwd, code := from.admit(ctx, open)
	if code != "" {
		return nil, nil, code
	}
	if code := fwd.choose(open); code != "" {
		return fwd, nil, code
	}
	if err := fwd.unsealed(open, nil); err != nil {
		return fwd, nil, err
	}
	if from.counts() {
		if code := f.portions.take(ctx, fwd); code != "" {
			return fwd, nil, code
		}
		if code := f.tally.assure(ctx, fwd.mapping.meter.payer); code != "" {
			return fwd, nil, code
		}
	}
	if !fwd.attach(stream) {
		return fwd, nil, fwd.reason(nil)
	}
	stop := func() {}
	if visitor, ok := stream.(leaver); ok {
		stop = visitor.OnReset(func() {
			fwd.reset(wire.VisitorLeft)
			cancel()
		})
	}
	target, err := f.reach(ctx, fwd, open)
	stop()
	if err != nil {
		return fwd, nil, fwd.reason(err)
	}
	fwd.joined.Store(true)
	return fwd, target, nil
}

// reach opens the continuation to the target agent, or to one of several.
func (f *Forwarder) reach(ctx context.Context, fwd *forward, open *wirepb.Open) (transport.Stream, error) {
	if len(fwd.choices) > 0 {
		return f.reachOneOf(ctx, fwd, open)
	}
	return f.reachTarget(ctx, fwd, open, fwd.mapping.State.TargetClientID) // an id never changes
}

// reachTarget opens the continuation: to the target agent's session if it is here, and
// otherwise to a forwarder that has it. Both look the same to what follows.
func (f *Forwarder) reachTarget(ctx context.Context, fwd *forward, open *wirepb.Open, client int64) (transport.Stream, error) {
	if target := fwd.target; target != nil {
		stream, err := f.reachHere(ctx, fwd, target, open)
		if err == nil || !elsewhere(err) {
			return stream, err
		}
	}
	if f.peers == nil || !fwd.origin.crosses() {
		return nil, wire.TargetOffline
	}
	fwd.ticket, fwd.at = 0, nil // of a try here
	return f.reachPeer(ctx, fwd, open, client)
}

func (f *Forwarder) reachHere(ctx context.Context, fwd *forward, target *session, open *wirepb.Open) (transport.Stream, error) {
	if err := target.lacks(fwd.protocol); err != nil {
		return nil, err
	}
	if fwd.heralded {
		if err := target.lacks(carriesProxyProtocol); err != nil {
			return nil, err // the service would take the visitor's first bytes for a header
		}
	}
	if err := fwd.unsealed(open, target); err != nil {
		return nil, err
	}
	stream, err := target.link.Open(ctx)
	if err != nil {
		return nil, wire.TargetOffline
	}
	fwd.ticket, fwd.at = f.ticketFor(fwd, target), target
	return f.ask(ctx, fwd, stream, &wirepb.Open{MappingId: open.GetMappingId(), Peer: clip(open.GetPeer()), Local: fwd.local(open),
		Service: fwd.service, Protocol: fwd.protocol, MappingProtocol: fwd.of, Options: fwd.options, Trace: clip(open.GetTrace()),
		Seal: open.GetSeal(), ListenerVersion: open.GetListenerVersion(), SourceClient: fwd.source, Ticket: fwd.ticket, Check: fwd.check})
}

// ask sends the Open and waits for the answer. The stream has ended unless it is
// returned.
func (f *Forwarder) ask(ctx context.Context, fwd *forward, stream transport.Stream, open *wirepb.Open) (transport.Stream, error) {
	if !fwd.attach(stream) {
		return nil, fwd.reason(nil)
	}
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	err := wire.WriteOpen(stream, open)
	if err == nil {
		fwd.seal, err = wire.ReadOpenedSealed(stream)
	}
	if err == nil {
		stream.SetDeadline(time.Time{})
		return stream, nil
	}
	stream.Reset()
	fwd.detach()
	var refusal *wire.Refusal
	switch {
	case errors.As(err, &refusal):
	case isTimeout(err):
		err = wire.TargetOverloaded // an agent gives up its dial before, and says so
	default:
		err = wire.TargetOffline // its session, or the bridge, ended under the stream
	}
	return nil, fwd.reason(err)
}

// local is where the visitor connected to, for a service that is told.
func (f *forward) local(open *wirepb.Open) string {
	if !f.heralded {
		return ""
	}
	return clip(open.GetLocal())
}

// clip bounds what an agent says for the other's log.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 256)], "") }

// refuse answers no, and lets the agent read that before the stream ends: the
// data that the agent sent behind its Open is still on the way.
func refuse(stream transport.Stream, reason error) {
	stream.SetDeadline(time.Now().Add(farewellTime))
	if wire.WriteOpened(stream, reason) != nil || stream.CloseWrite() != nil {
		stream.Reset()
		return
	}
	// Until the agent closes, or too much comes from one that does not listen.
	if _, err := io.CopyN(io.Discard, stream, 256<<10); !errors.Is(err, io.EOF) {
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
func (f *Forwarder) ended(fwd *forward, toTarget, toSource int64, err error) {
	log := fwd.origin.logger()
	if log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("stream ended", "mapping", fwd.mapping.State.ID, "to_target", toTarget, "to_source", toSource,
			"error", said(fwd.reason(err)))
	}
}
