package agent

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Pauses between tries to open listeners that could not be opened.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// listeners are the sockets that the agent's mappings ask for. They live as long
// as the agent, not as a session: a new session that asks for the same finds
// them open.
type listeners struct {
	a    *Agent
	wake chan struct{} // something could not be opened

	mu      sync.Mutex
	closed  bool
	version uint64                     // of the configuration, as the forwarder counts
	wanted  map[int64]*wirepb.Listener // the configuration, by mapping
	open    map[int64]*listener
	failed  map[int64]*wirepb.Failure
}

// listener is one mapping's socket with the connections that came through it.
type listener struct {
	mapping int64
	address string // of socket
	socket  net.Listener
	conns   map[net.Conn]struct{}
}

func newListeners(a *Agent) *listeners {
	return &listeners{a: a, wake: make(chan struct{}, 1), wanted: map[int64]*wirepb.Listener{},
		open: map[int64]*listener{}, failed: map[int64]*wirepb.Failure{}}
}

// running names the configuration that the agent runs, for Hello.
func (ls *listeners) running() (version uint64, digest []byte) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.version == 0 {
		return 0, nil
	}
	return ls.version, wire.Digest(slices.Collect(maps.Values(ls.wanted)))
}

// apply makes the sockets what the assignment says. What is already so is not
// touched. It returns nil for an assignment of a session that has been left.
func (ls *listeners) apply(s *session, m *wirepb.Assign) *wirepb.Ack {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed || ls.a.session.Load() != s {
		return nil
	}
	if !m.GetUnchanged() {
		if m.GetFull() {
			clear(ls.wanted)
		}
		for _, id := range m.GetWithdraw() {
			delete(ls.wanted, id)
		}
		for _, l := range m.GetListeners() {
			ls.wanted[l.GetMappingId()] = l
		}
		ls.settle()
	}
	ls.version = m.GetVersion()
	return ls.ack()
}

// settle closes what is not wanted, then opens what is: addresses that moved
// from one mapping to another are free by then.
func (ls *listeners) settle() {
	for id, l := range ls.open {
		want := ls.wanted[id]
		switch {
		case want == nil:
			l.socket.Close()
			for conn := range l.conns {
				transport.Reset(conn)
			}
			delete(ls.open, id)
			ls.a.log.Info("listener closed", "mapping", id, "address", l.address)
		case l.socket != nil && l.address != addressOf(want):
			// The mapping goes on elsewhere, and its connections with it.
			l.socket.Close()
			l.socket = nil
		}
	}
	for id := range ls.failed {
		if ls.wanted[id] == nil {
			delete(ls.failed, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ls.wanted)) {
		ls.bind(ls.wanted[id])
	}
	if len(ls.failed) > 0 {
		select {
		case ls.wake <- struct{}{}:
		default:
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
	socket, failure := listen(want)
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
	l.socket, l.address = socket, addressOf(want)
	ls.a.log.Info("listener opened", "mapping", id, "address", l.address)
	ls.a.start(func() { ls.accept(l, socket) })
}

func addressOf(l *wirepb.Listener) string {
	addr, err := netip.ParseAddr(l.GetHost())
	if err != nil || l.GetPort() > 65535 {
		return ""
	}
	return netip.AddrPortFrom(addr, uint16(l.GetPort())).String()
}

// listen opens a socket, or says why not.
func listen(want *wirepb.Listener) (net.Listener, *wirepb.Failure) {
	fail := func(code wire.Code, message string) (net.Listener, *wirepb.Failure) {
		return nil, &wirepb.Failure{MappingId: want.GetMappingId(), Code: string(code), Message: message}
	}
	if want.GetProtocol() != "tcp" {
		return fail(wire.ProtocolUnavailable, wire.ProtocolUnavailable.Sentence())
	}
	address := addressOf(want)
	if address == "" || want.GetPort() == 0 {
		return fail(wire.AddressUnavailable, "the address is not an IP address and a port")
	}
	// The family is named, or 0.0.0.0 would open the IPv6 addresses too.
	network := "tcp4"
	if netip.MustParseAddrPort(address).Addr().Is6() {
		network = "tcp6"
	}
	socket, err := net.Listen(network, address)
	switch {
	case err == nil:
		return socket, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(wire.AddressInUse, err.Error())
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fail(wire.AddressDenied, err.Error())
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return fail(wire.AddressUnavailable, err.Error())
	}
	return fail(wire.Internal, err.Error())
}

// ack says what the agent runs now.
func (ls *listeners) ack() *wirepb.Ack {
	ack := &wirepb.Ack{Version: ls.version}
	for _, id := range slices.Sorted(maps.Keys(ls.failed)) {
		ack.Failures = append(ack.Failures, ls.failed[id])
	}
	return ack
}

// retry opens what could not be opened, again and again, and tells the forwarder
// when something changed: the program that held the address may have gone.
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
			if !sleep(ctx, pause) {
				return
			}
			var ack *wirepb.Ack
			if ack, left = ls.again(); ack == nil {
				continue
			}
			if s := ls.a.session.Load(); s != nil {
				// A session that cannot take it ends by itself.
				_ = s.acknowledge(ack)
			}
		}
	}
}

// again tries what failed once more. ack is nil when nothing came of it; left
// tells whether something is still to be opened.
func (ls *listeners) again() (ack *wirepb.Ack, left bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil, false
	}
	before := len(ls.failed)
	for _, id := range slices.Sorted(maps.Keys(ls.failed)) {
		ls.bind(ls.wanted[id])
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
	clear(ls.wanted)
	clear(ls.failed)
	for id, l := range ls.open {
		if l.socket != nil {
			l.socket.Close()
		}
		for conn := range l.conns {
			transport.Reset(conn)
		}
		delete(ls.open, id)
	}
}

// accept takes connections until the socket is closed. Running out of
// descriptors, for example, does not end it.
func (ls *listeners) accept(l *listener, socket net.Listener) {
	pause := 5 * time.Millisecond
	for {
		conn, err := socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			ls.a.log.Warn("accepting connections", "mapping", l.mapping, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s := ls.a.session.Load()
		if s == nil || !ls.enter(l, conn) {
			transport.Reset(conn)
			continue
		}
		ls.a.start(func() {
			defer ls.exit(l, conn)
			s.carry(l.mapping, conn.(*net.TCPConn))
		})
	}
}

// enter notes a connection, so that it ends with its mapping.
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
