package agent

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/socks"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// maxAssociations bounds the UDP associations of one listener.
const maxAssociations = 1024

// associations are the UDP associations (RFC 1928, section 7) of one SOCKS listener. All
// of them use one UDP port, with the number of the listener, so that one more hole in a
// firewall is enough. It is opened when somebody asks for an association.
//
// The source address of a datagram says which association it belongs to. Most clients do
// not know their source address when they ask, and say zeros. So the first datagram from
// an unknown port of a host belongs to the oldest association of that host that has no
// port yet. All other datagrams are dropped.
type associations struct {
	address netip.AddrPort

	mu     sync.Mutex // guards all below
	closed bool
	counts *datagram.Counts // set with socket
	socket *datagram.Socket // nil: nobody has asked yet
	all    []*association   // the oldest first
	source map[netip.AddrPort]*association
}

// association is one client's: it lasts as long as the TCP connection that asked for it.
type association struct {
	host netip.Addr // of the client
	port uint16     // that the client says it sends from, 0 = not known
	flow *datagram.Flow

	source netip.AddrPort            // guarded by associations.mu, like the next; invalid = nothing came yet
	answer func(packet []byte) error // sends to source
	packet []byte                    // used by the flow's one writer
}

// open gives the port, and has datagrams served.
func (as *associations) open(a *Agent, mapping int64) (port uint16, err error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.closed {
		return 0, net.ErrClosed
	}
	if as.socket == nil {
		network := "udp4"
		if as.address.Addr().Is6() {
			network = "udp6"
		}
		socket, err := datagram.Listen(network, as.address.String())
		if err != nil {
			return 0, err
		}
		as.socket, as.counts, as.source = socket, &a.datagrams, map[netip.AddrPort]*association{}
		a.start(func() {
			as.serve(socket, func(err error) { a.log.Warn("cannot receive datagrams", "mapping", mapping, "error", err) })
		})
	}
	return as.socket.LocalAddr().Port(), nil
}

// serve takes datagrams until the socket is closed.
func (as *associations) serve(s *datagram.Socket, failed func(error)) {
	for {
		err := s.Receive(func(from netip.AddrPort, to netip.Addr, packet []byte) { as.deliver(s, from, to, packet) })
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed(err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// deliver gives a client's datagram to its association.
func (as *associations) deliver(s *datagram.Socket, from netip.AddrPort, to netip.Addr, packet []byte) {
	rest, err := socks.OpenDatagram(packet)
	if err == nil {
		_, _, err = socks.SplitAddress(rest)
	}
	if err != nil {
		as.counts.Dropped.Add(1)
		return
	}
	as.mu.Lock()
	a := as.source[from]
	if a == nil {
		if a = as.owner(from); a != nil {
			if a.source.IsValid() {
				delete(as.source, a.source)
			}
			a.source, a.answer, as.source[from] = from, s.Answer(from, to), a
		}
	}
	as.mu.Unlock()
	if a == nil {
		as.counts.Refused.Add(1)
		return
	}
	a.flow.Deliver(rest)
}

// owner finds the association of a source that was not seen before. If a host has only
// one association, it may change its port. The lock is held.
func (as *associations) owner(from netip.AddrPort) *association {
	var of []*association
	for _, a := range as.all {
		if a.host != from.Addr().WithZone("") {
			continue
		}
		if a.port == from.Port() {
			return a
		}
		of = append(of, a)
	}
	for _, a := range of {
		if a.port == 0 && !a.source.IsValid() {
			return a
		}
	}
	if len(of) == 1 {
		return of[0]
	}
	return nil
}

// begin makes an association for the client at an address, which may have said where it
// will send from.
func (as *associations) begin(client netip.AddrPort, said socks.Address) (*association, bool) {
	a := &association{host: client.Addr().Unmap().WithZone("")}
	if ip, err := netip.ParseAddr(said.Host); err == nil && (ip.IsUnspecified() || ip.Unmap() == a.host) {
		a.port = said.Port
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.closed || len(as.all) >= maxAssociations {
		return nil, false
	}
	at := net.UDPAddrFromAddrPort(as.address)
	a.flow = datagram.NewFlow(at, net.UDPAddrFromAddrPort(client), as.counts, func(rest []byte) error { return as.send(a, rest) }, func() { as.end(a) })
	as.all = append(as.all, a)
	return a, true
}

var errNoSource = errors.New("the client has sent nothing yet")

// send takes a datagram to the client.
func (as *associations) send(a *association, rest []byte) error {
	as.mu.Lock()
	answer := a.answer
	as.mu.Unlock()
	if answer == nil {
		return errNoSource
	}
	a.packet = socks.AppendDatagram(a.packet[:0], rest)
	return answer(a.packet)
}

// end forgets an association. The client may not have said its port. Then the source that
// was taken for this association may belong to another association of the host that has
// no source yet, and that one takes it over.
func (as *associations) end(a *association) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.all = slices.DeleteFunc(as.all, func(o *association) bool { return o == a })
	if as.source[a.source] != a {
		return
	}
	delete(as.source, a.source)
	for _, o := range as.all {
		if o.host == a.host && o.port == 0 && a.port == 0 && !o.source.IsValid() {
			o.source, o.answer, as.source[a.source] = a.source, a.answer, o
			return
		}
	}
}

// close ends all of them.
func (as *associations) close() error {
	as.mu.Lock()
	as.closed = true
	socket, all := as.socket, slices.Clone(as.all)
	as.mu.Unlock()
	for _, a := range all {
		_ = a.flow.Close()
	}
	if socket == nil {
		return nil
	}
	return socket.Close()
}

// associate serves a client that asks for an association, until its connection ends.
func (s socksSocket) associate(ls *listeners, l *listener, conn *net.TCPConn, said socks.Address) {
	defer conn.Close()
	refuse := func(reply socks.Reply, reason error) {
		ls.a.socksRefused.Add(1)
		ls.a.log.Debug("a SOCKS association was refused", "mapping", l.mapping, "from", conn.RemoteAddr(), "error", reason)
		_ = socks.WriteReply(conn, reply, netip.AddrPort{})
	}
	here, hereErr := netip.ParseAddrPort(conn.LocalAddr().String())
	client, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err = errors.Join(err, hereErr); err != nil {
		refuse(socks.Failed, err)
		return
	}
	port, err := s.udp.open(ls.a, l.mapping)
	if err != nil {
		ls.a.log.Warn("no UDP port for SOCKS associations", "mapping", l.mapping, "address", s.udp.address, "error", err)
		refuse(socks.Failed, err)
		return
	}
	a, ok := s.udp.begin(client, said)
	if !ok {
		refuse(socks.Failed, errors.New("there are too many"))
		return
	}
	defer a.flow.Close()
	session, stream, err := ls.a.open(&wirepb.Open{MappingId: l.mapping, Peer: conn.RemoteAddr().String(), Local: localText(conn), Protocol: socksAssociation}, l.options.Load(), conn)
	if err != nil {
		refuse(replyOf(err), err)
		return
	}
	// The address that the client has reached is one that its datagrams reach too.
	if socks.WriteReply(conn, socks.Succeeded, netip.AddrPortFrom(here.Addr().Unmap().WithZone(""), port)) != nil {
		_ = stream.Reset()
		return
	}
	ls.a.start(func() { // nothing more is to come but the end
		_, _ = io.Copy(io.Discard, conn)
		_ = a.flow.CloseWrite()
	})
	session.ended(transport.Splice(a.flow, stream, transport.Count{}))
}
