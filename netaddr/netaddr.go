// Package netaddr says what counts as one network address where limits are counted by
// address.
//
// Its duty: a machine with many addresses must not get a limit for each of them. Its
// limit: it decides from the address alone. It cannot know who is behind a proxy or a
// NAT.
package netaddr

import (
	"net"
	"net/netip"
)

// networkBits is the size of the IPv6 network that one customer gets. A single machine
// may use all of its addresses.
const networkBits = 64

// Group gives the group of a remote address, with or without a port: the address itself
// for IPv4, its /64 for IPv6. For a text that is not an address it gives the host.
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
