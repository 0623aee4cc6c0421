package agent

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Pauses between attempts to open listeners that could not be opened.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// listeners are the sockets of the agent's mappings. They live as long as the agent, and
// longer than a session: a later session, or a second one beside the first, finds them
// open if it asks for the same.
type listeners struct {
	a    *Agent
	wake chan struct{} // something could not be opened

	mu     sync.Mutex
	closed bool
	views  map[*session]*view // what each forwarder has assigned
	wanted view               // the configuration that the agent runs
	open   map[int64]*listener
	failed map[int64]*wirepb.Failure
	noted  chan struct{} // closed and replaced when one of open and failed has changed
}

// view is a configuration. Its version is the position of the log at which it was right.
// Of two views the one with the higher version is newer, whichever forwarder sent it.
type view struct {
	version   uint64
	listeners map[int64]*wirepb.Listener // by mapping
}

func (v *view) digest() []byte { return wire.Digest(slices.Collect(maps.Values(v.listeners))) }

// listener is the socket of one mapping, with the connections that it accepted.
type listener struct {
	mapping int64
	address string // of socket
	socket  socket
	options atomic.Pointer[options]
	conns   map[net.Conn]struct{}
}

func newListeners(a *Agent) *listeners {
	return &listeners{a: a, wake: make(chan struct{}, 1), views: map[*session]*view{}, open: map[int64]*listener{}, failed: map[int64]*wirepb.Failure{}, noted: make(chan struct{})}
}

// running gives the configuration that the agent runs, for Hello; nil if it has none yet.
func (ls *listeners) running() *view {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.wanted.version == 0 {
		return nil
	}
	return &view{ls.wanted.version, maps.Clone(ls.wanted.listeners)}
}

// apply opens and closes sockets as the assignment says, unless another session has sent
// a newer one. It does not touch sockets that are already right. It returns nil for an
// assignment of a session that is being left for another.
func (ls *listeners) apply(s *session, m *wirepb.Assign) *wirepb.Ack {
	staying := !ls.a.sessions.isLeaving(s) || ls.a.sessions.staying(s) == 0
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed || !staying {
		return nil
	}
	v, first := ls.views[s], false
	if v == nil {
		v, first = &view{listeners: map[int64]*wirepb.Listener{}}, true
		if m.GetUnchanged() && s.named != nil {
			v.listeners = s.named.listeners
		}
		ls.views[s] = v
	}
	v.version = m.GetVersion()
	if !m.GetUnchanged() {
		if m.GetFull() {
			clear(v.listeners)
		}
		for _, id := range m.GetWithdraw() {
			delete(v.listeners, id)
		}
		for _, l := range m.GetListeners() {
			v.listeners[l.GetMappingId()] = l
		}
	}
	if v.version >= ls.wanted.version || (first || m.GetFull()) && v.version >= ls.newest().version {
		ls.wanted = view{v.version, maps.Clone(v.listeners)}
		ls.settle()
	}
	return ls.ack()
}

// newest gives the newest assignment of the present sessions. The versions of a log that
// was restored from a backup begin lower again. Then the assignments of the forwarders
// to which the agent has connected since are right.
func (ls *listeners) newest() (newest *view) {
	for _, v := range ls.views {
		if newest == nil || v.version > newest.version {
			newest = v
		}
	}
	return newest
}

// drop forgets the assignment of a session that has ended. The agent keeps running it.
func (ls *listeners) drop(s *session) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.views, s)
}

// settle closes the listeners that are not wanted, and then opens the others, so that an
// address that moved from one mapping to another is free by then.
func (ls *listeners) settle() {
	for id, l := range ls.open {
		want := ls.wanted.listeners[id]
		switch {
		case want == nil:
			if l.socket != nil { // its address could be closed and the next one not opened
				l.socket.Close()
			}
			for conn := range l.conns {
				transport.Reset(conn)
			}
			delete(ls.open, id)
			ls.note()
			ls.a.log.Info("listener closed", "mapping", id, "address", l.address)
		case l.socket != nil && l.address == addressOf(want):
			l.take(want)
		case l.socket != nil:
			// The mapping goes on elsewhere, and its connections with it.
			l.socket.Close()
			l.socket = nil
		}
	}
	for id := range ls.failed {
		if ls.wanted.listeners[id] == nil {
			delete(ls.failed, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ls.wanted.listeners)) {
		ls.bind(ls.wanted.listeners[id])
	}
	if len(ls.failed) > 0 {
		select {
		case ls.wake <- struct{}{}:
		default:
		}
	}
}

// opened waits until the listener of a mapping is open. An error says why it cannot be.
func (ls *listeners) opened(ctx context.Context, mapping int64) error {
	for {
		ls.mu.Lock()
		l, failed, want, noted := ls.open[mapping], ls.failed[mapping], ls.wanted.listeners[mapping], ls.noted
		done := l != nil && l.socket != nil
		ls.mu.Unlock()
		switch {
		case done:
			return nil
		case failed != nil:
			return listenRefusal(addressOf(want), failed)
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return &refusedHere{"no_answer", "The server created the mapping, but has not told this agent to listen: try again."}
		}
	}
}

// bind opens the listener's socket if it is not open.
func (ls *listeners) bind(want *wirepb.Listener) {
	id := want.GetMappingId()
	l := ls.open[id]
	if l != nil && l.socket != nil {
		return
	}
	defer ls.note()
	opened, failure := ls.listen(want)
	if failure != nil {
		if !proto.Equal(failure, ls.failed[id]) {
			ls.a.log.Warn("listener not opened", "mapping", id, "address", addressOf(want), "reason", failure.GetMessage())
		}
		ls.failed[id] = failure
		return
	}
	delete(ls.failed, id)
	if l == nil {
		l = &listener{mapping: id, conns: map[net.Conn]struct{}{}}
		ls.open[id] = l
	}
	l.take(want)
	l.socket, l.address = opened, addressOf(want)
	ls.a.log.Info("listener opened", "mapping", id, "address", l.address)
	ls.a.start(func() { opened.serve(ls, l) })
}

// take applies the options of the mapping from now on.
func (l *listener) take(want *wirepb.Listener) {
	o := optionsOf(want)
	l.options.Store(&o)
}

// note wakes those who wait for a change. mu is held.
func (ls *listeners) note() {
	close(ls.noted)
	ls.noted = make(chan struct{})
	if ls.a.changed != nil {
		ls.a.changed()
	}
}

// change tells whether a mapping should have a listener. The channel is closed when this
// may have changed.
func (ls *listeners) change(mapping int64) (wanted bool, noted <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.wanted.listeners[mapping] != nil, ls.noted
}

// has tells whether a mapping has an open listener. The channel is closed when this may
// have changed.
func (ls *listeners) has(mapping int64) (open bool, noted <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.open[mapping]
	return ls.wanted.listeners[mapping] != nil || l != nil && l.socket != nil, ls.noted
}

func addressOf(l *wirepb.Listener) string {
	addr, err := netip.ParseAddr(l.GetHost())
	if err != nil || l.GetPort() > 65535 {
		return ""
	}
	return netip.AddrPortFrom(addr, uint16(l.GetPort())).String()
}

// listen opens a socket that the server asks for, or says why not. The owner of this
// machine must have allowed the address.
func (ls *listeners) listen(want *wirepb.Listener) (socket, *wirepb.Failure) {
	_, known := listens(want.GetProtocol())
	at, err := netip.ParseAddrPort(addressOf(want))
	if known && err == nil && at.Port() != 0 && !ls.a.listening.Allows(at) && !ls.a.tunnels.listenAt(at) {
		return nil, &wirepb.Failure{MappingId: want.GetMappingId(), Code: string(wire.AddressDenied),
			Message: "this agent does not listen on " + at.String() + "; its owner allows it with --allow-listen " + at.String()}
	}
	if o := optionsOf(want); ls.a.sealedOnly && !o.sealed() {
		return nil, &wirepb.Failure{MappingId: want.GetMappingId(), Code: string(wire.EncryptionRequired),
			Message: "the owner of this agent allows connections that are encrypted from end to end only, and the mapping's encryption is transport"}
	}
	return listen(want)
}

// listen opens a socket, or says why not.
func listen(want *wirepb.Listener) (socket, *wirepb.Failure) {
	fail := func(code wire.Code, message string) (socket, *wirepb.Failure) {
		return nil, &wirepb.Failure{MappingId: want.GetMappingId(), Code: string(code), Message: message}
	}
	kind, ok := listens(want.GetProtocol())
	if !ok {
		return fail(wire.ProtocolUnavailable, wire.ProtocolUnavailable.Sentence())
	}
	address := addressOf(want)
	if address == "" || want.GetPort() == 0 {
		return fail(wire.AddressUnavailable, "the address is not an IP address and a port")
	}
	opened, err := kind.listen(netip.MustParseAddrPort(address))
	switch {
	case err == nil:
		return opened, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(wire.AddressInUse, err.Error())
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fail(wire.AddressDenied, err.Error())
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return fail(wire.AddressUnavailable, err.Error())
	}
	return fail(wire.Internal, err.Error())
}

// ack tells what the agent runs now.
func (ls *listeners) ack() *wirepb.Ack {
	ack := &wirepb.Ack{Version: ls.wanted.version}
	for _, id := range slices.Sorted(maps.Keys(ls.failed)) {
		ack.Failures = append(ack.Failures, ls.failed[id])
	}
	return ack
}

// retry tries again and again to open the listeners that failed, because the program that
// holds the address may end. It tells the forwarder what has changed.
func (ls *listeners) retry(ctx context.Context) {
	pause := firstRetry
	for {
		select {
		case <-ls.wake:
			pause = firstRetry
		case <-ctx.Done():
			return
		}
		for left := true; left; pause = min(2*pause, lastRetry) {
			if !wait.For(ctx, pause) {
				return
			}
			var ack *wirepb.Ack
			if ack, left = ls.again(); ack == nil {
				continue
			}
			if s, _, _ := ls.a.sessions.pick(nil); s != nil {
				// A session that cannot take it ends by itself.
				_ = s.acknowledge(ack)
			}
		}
	}
}

// again tries once more to open the listeners that failed. ack is nil if none was opened.
// left tells whether some are still not open.
func (ls *listeners) again() (ack *wirepb.Ack, left bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil, false
	}
	before := len(ls.failed)
	for _, id := range slices.Sorted(maps.Keys(ls.failed)) {
		ls.bind(ls.wanted.listeners[id])
	}
	if len(ls.failed) != before {
		ack = ls.ack()
	}
	return ack, len(ls.failed) > 0
}

// close closes all sockets and connections, for good.
func (ls *listeners) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.closed = true
	ls.empty()
}

// enter records a connection, so that it ends with its mapping.
func (ls *listeners) enter(l *listener, conn net.Conn) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed || ls.open[l.mapping] != l {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

func (ls *listeners) exit(l *listener, conn net.Conn) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(l.conns, conn)
}
