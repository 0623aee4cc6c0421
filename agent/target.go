package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	serviceTimeout = 10 * time.Second // to resolve and dial a service, all of its addresses
	readTimeout    = 10 * time.Second // from a stream's start to its Open
	farewellTime   = time.Second      // for the forwarder to read a refusal
)

// target dials services, as far as the policy of the agent's owner allows.
type target struct {
	agent   *Agent
	policy  atomic.Pointer[Policy]
	carried carriedStreams
	// embedded says that an embedder dials, whose own rules datagrams would pass by.
	embedded bool
	asked    consents // what whoever starts a tunnel here allows by that
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	resolve  func(ctx context.Context, host string) ([]net.IPAddr, error)
}

func newTarget(a *Agent, cfg Config) *target {
	t := &target{agent: a, dial: cfg.DialService, resolve: cfg.Resolve, embedded: cfg.DialService != nil}
	t.policy.Store(&cfg.Policy)
	if t.dial == nil {
		t.dial = new(net.Dialer).DialContext
	}
	if t.resolve == nil {
		t.resolve = net.DefaultResolver.LookupIPAddr
	}
	return t
}

// serve takes one stream of the forwarder to the service it names. It and what
// it calls stay small while bytes flow or do not: an idle connection costs its
// stack.
func (t *target) serve(ctx context.Context, s *session, stream transport.Stream) {
	defer stream.Close() // does nothing to a stream that has ended
	conn, carried, crossed, forget := t.answer(ctx, s, stream)
	if conn == nil {
		return
	}
	defer forget()
	defer crossed.end()
	defer conn.Close()
	s.ended(transport.Splice(carried, conn, crossed.count()))
}

// answer reads the Open, reaches the service and says yes; or says no, and gives
// nil. crossed counts what is carried.
func (t *target) answer(ctx context.Context, s *session, stream transport.Stream) (_ transport.Duplex, carried transport.Stream, crossed *crossing, forget func()) {
	stream.SetReadDeadline(time.Now().Add(readTimeout))
	open, err := wire.ReadOpen(stream)
	if err != nil {
		stream.Reset()
		return nil, nil, nil, nil
	}
	stream.SetReadDeadline(time.Time{})
	if promote := open.GetPromote(); promote != nil {
		s.lanes.give(ctx, stream, promote.GetTicket())
		return nil, nil, nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := stream.OnReset(cancel)
	response, err := t.unseal(ctx, s, open)
	var conn transport.Duplex
	if err == nil {
		conn, err = t.dialKind(ctx, open)
	}
	if err == nil {
		err = herald(conn, open)
	}
	if check := open.GetCheck(); check != "" {
		if err == nil {
			err = checkService(ctx, conn, check)
			_ = conn.Close()
		}
		refuse(stream, err) // or says yes, and waits for the end as well
		return nil, nil, nil, nil
	}
	stop()
	if err != nil && ctx.Err() != nil { // nobody waits for the service any more, or the agent ends
		stream.Reset()
		return nil, nil, nil, nil
	}
	if err != nil {
		if errors.Is(err, seal.ErrForgotten) { // after a restart of this agent; the other end asks again
			refuse(stream, err)
			return nil, nil, nil, nil
		}
		s.complain("service not reached", open.GetMappingId(), err, "service", open.GetService())
		t.tallied(open).refused(open.GetPeer(), err)
		refuse(stream, err)
		return nil, nil, nil, nil
	}
	transport.Unfinished(conn)
	conn = t.watched(open, conn)
	forget = func() {}
	if t.policy.Load().list != nil {
		forget = t.carried.add(open, stream, conn, t.allows)
	}
	carried, err = t.opened(stream, response)
	if err != nil {
		transport.Reset(conn)
		stream.Reset()
		forget()
		return nil, nil, nil, nil
	}
	if ticket := open.GetTicket(); ticket != 0 {
		before, lanes := forget, s.lanes.received(carried, ticket)
		forget = func() { before(); lanes() }
	}
	return conn, carried, t.tallied(open).begin(open.GetPeer()), forget
}

// refuse answers no and lets the forwarder read it before the stream ends.
func refuse(stream transport.Stream, reason error) {
	stream.SetDeadline(time.Now().Add(farewellTime))
	if wire.WriteOpened(stream, reason) != nil || stream.CloseWrite() != nil {
		stream.Reset()
		return
	}
	if _, err := io.CopyN(io.Discard, stream, 256<<10); !errors.Is(err, io.EOF) {
		stream.Reset()
	}
}

// dialKind reaches the service of a stream as what it carries asks for.
func (t *target) dialKind(ctx context.Context, open *wirepb.Open) (transport.Duplex, error) {
	kind, ok := kindOf(open.GetProtocol())
	if !ok {
		return nil, wire.ProtocolUnavailable
	}
	return kind.dial(ctx, t, open)
}

// reach resolves the service once, and dials the very addresses that the policy
// has seen: resolving again would let a name change its meaning in between.
func (t *target) reach(ctx context.Context, network, protocol, service string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	host, portText, err := net.SplitHostPort(service)
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || port == 0 || host == "" {
		return nil, fmt.Errorf("service %q: %w", service, wire.Malformed)
	}
	addrs, err := t.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	var allowed []netip.Addr
	policy, now, why := t.policy.Load(), time.Now(), ""
	for _, addr := range addrs {
		v := policy.ask(question{protocol: protocol, host: host, addr: addr, port: uint16(port), now: now})
		if v.allowed || t.asked.allows(host, addr, uint16(port)) {
			allowed = append(allowed, addr)
		}
		why = v.why
	}
	if len(allowed) == 0 {
		return nil, notAllowed(service, why)
	}
	return t.dialFirst(ctx, network, allowed, uint16(port))
}

// allowsPlace refuses a unix socket or a directory that may not be reached. top is the
// path that was named when it was allowed.
func (t *target) allowsPlace(protocol string, at place) (top string, err error) {
	v := t.policy.Load().ask(question{protocol: protocol, at: &at, now: time.Now()})
	if v.allowed {
		return v.top, nil
	}
	if top, ok := t.asked.allowsPlace(at); ok {
		return top, nil
	}
	return "", notAllowed(at.String(), v.why)
}

// protocolOf is the protocol of the mapping that a stream is of. Older forwarders say
// what is carried only.
func protocolOf(open *wirepb.Open) string {
	return cmp.Or(open.GetMappingProtocol(), open.GetProtocol(), "tcp")
}

// try reaches a service as the first connection of a tunnel will.
func (t *target) try(ctx context.Context, protocol, service string) (net.Conn, error) {
	at, ok := parsePlace(service)
	if !ok {
		return t.reach(ctx, "tcp", protocol, service)
	}
	dial := dialUnix
	if at.kind == filePlace {
		dial = dialFiles
	}
	return dial(ctx, t, &wirepb.Open{Service: at.path, MappingProtocol: protocol})
}

// notAllowed is the refusal of a service; why is where that stands, for a policy that is
// a list.
func notAllowed(service, why string) error {
	if why != "" {
		return &wire.Refusal{Code: wire.PolicyDenied, Message: fmt.Sprintf("the target agent's policy does not allow %s: %s", service, why)}
	}
	return &wire.Refusal{Code: wire.PolicyDenied, Message: fmt.Sprintf(
		"the target agent's policy does not allow %s; its owner can, with --allow %[1]s", service)}
}

func (t *target) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	found, err := t.resolve(ctx, host)
	if err != nil {
		return nil, &wire.Refusal{Code: wire.DialUnreachable, Message: "the service's host name does not resolve at the target agent"}
	}
	var addrs []netip.Addr
	for _, f := range found {
		if addr, ok := netip.AddrFromSlice(f.IP); ok {
			addrs = append(addrs, addr.Unmap().WithZone(f.Zone))
		}
	}
	return addrs, nil
}
