package datagram

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Socket is a UDP socket at which sources that were not known before come in. Each is
// answered from the address that it has asked at, also where the socket has all
// addresses of the machine.
type Socket struct {
	conn *net.UDPConn
	six  bool // an IPv6 socket, which may take IPv4 too
	wide bool // it has several addresses: each datagram tells at which it came in
	in   receiver
}

// buffers are what the system is asked to keep of datagrams that were not taken yet, in
// bytes. It gives less where it is not allowed to.
const buffers = 1 << 20

// Listen opens a socket. network is udp4, udp6, or udp for both families.
func Listen(network, address string) (*Socket, error) {
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("listen for datagrams: %T is no UDP socket", conn)
	}
	_ = udp.SetReadBuffer(buffers) // as much as there is
	_ = udp.SetWriteBuffer(buffers)
	s := &Socket{conn: udp}
	local := s.LocalAddr().Addr()
	s.six = local.Is6()
	if local.IsUnspecified() {
		s.wide = s.wantDestinations() == nil // not every system tells; the routes decide there
	}
	if err := s.in.open(udp); err != nil {
		_ = udp.Close()
		return nil, err
	}
	return s, nil
}

// wantDestinations has each datagram tell at which address it came in.
func (s *Socket) wantDestinations() error {
	if s.six {
		return ipv6.NewPacketConn(s.conn).SetControlMessage(ipv6.FlagDst, true)
	}
	return ipv4.NewPacketConn(s.conn).SetControlMessage(ipv4.FlagDst, true)
}

// LocalAddr is where the socket is.
func (s *Socket) LocalAddr() netip.AddrPort {
	address, ok := s.conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return address.AddrPort()
}

// localAddr is the address at which a flow comes in.
func (s *Socket) localAddr(to netip.Addr) net.Addr {
	if !to.IsValid() {
		return s.conn.LocalAddr()
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, s.LocalAddr().Port()))
}

// Close closes the socket, which ends who serves it.
func (s *Socket) Close() error { return s.conn.Close() }

// answer gives what sends to a source from the address that it has asked at. Sending
// waits only while the queue of the network card is full.
func (s *Socket) answer(remote netip.AddrPort, local netip.Addr) func(payload []byte) error {
	var control []byte
	switch {
	case !local.IsValid():
	case local.Is4(): // also at an IPv6 socket that takes IPv4
		control = (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	default:
		control = (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return func(payload []byte) error {
		_, _, err := s.conn.WriteMsgUDPAddrPort(payload, control, remote)
		return err
	}
}

// receive waits for datagrams and calls each with those that have come: from whom, at
// which address if the socket has several, and what. each must not keep the payload.
func (s *Socket) receive(each func(from netip.AddrPort, to netip.Addr, payload []byte)) error {
	return s.in.receive(s.wide, s.six, each)
}

// unmapped gives an IPv4 address its own form, as the flows of both families are told
// apart by address only.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
