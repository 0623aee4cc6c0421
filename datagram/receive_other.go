//go:build !linux

package datagram

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// receiver takes the datagrams of a socket, one with each call.
type receiver struct {
	conn    *net.UDPConn
	buffer  []byte
	control []byte
}

func (r *receiver) open(conn *net.UDPConn) error {
	r.conn, r.buffer, r.control = conn, make([]byte, MaxPayload+1), make([]byte, 128)
	return nil
}

func (r *receiver) receive(several, six bool, each func(from netip.AddrPort, to netip.Addr, payload []byte)) error {
	n, c, _, from, err := r.conn.ReadMsgUDPAddrPort(r.buffer, r.control)
	if err != nil {
		return err
	}
	var to netip.Addr
	if several {
		to = destination(six, r.control[:c])
	}
	each(unmapped(from), to, r.buffer[:n])
	return nil
}

// destination finds the address at which a datagram came in; invalid if it is not there.
func destination(six bool, control []byte) netip.Addr {
	var ip net.IP
	if six {
		var m ipv6.ControlMessage
		if m.Parse(control) == nil {
			ip = m.Dst
		}
	} else {
		var m ipv4.ControlMessage
		if m.Parse(control) == nil {
			ip = m.Dst
		}
	}
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap()
}
