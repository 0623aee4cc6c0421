// Package netaddr says what counts as one network address where limits go by
// addresses.
//
// Its duty: a limit that each address of a machine had for itself would be none.
// Its limit: it decides from the address alone; who is behind a proxy or a NAT, it
// cannot know.
package netaddr

import (
	"net"
	"net/netip"
)

// networkBits is what one customer is given of IPv6, and a single machine may use
// all of it.
const networkBits = 64

// Group gives what a remote address counts as, with or without a port: of IPv4 the
// address, of IPv6 its /64. What is no address counts as its host.
func Group(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(networkBits); err == nil {
			return network.String()
		}
	}
	return ip.String()
}
