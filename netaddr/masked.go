package netaddr

import (
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Network gives the network of a remote address, with or without a port, for logs: the
// /24 of IPv4, the /48 of IPv6. It says where somebody is, and not who it is. For
// a text that is not an address it gives the host.
func Network(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip, bits := ip.Unmap().WithZone(""), 24
	if ip.Is6() {
		bits = 48
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return host
	}
	return network.String()
}

var addresses = regexp.MustCompile(`\[?(?:[0-9A-Fa-f:.%]*[0-9A-Fa-f][:.]|::)[0-9A-Fa-f:.]*(?:%[0-9A-Za-z]+)?\]?(?::[0-9]+)?`)

// Masked gives a text, of an error for example, with networks in place of the addresses
// in it. Addresses of this machine's loopback network are masked too.
func Masked(text string) string {
	return addresses.ReplaceAllStringFunc(text, func(found string) string {
		bare := strings.TrimRight(found, ":.")
		if network := Network(bare); network != bare && strings.Contains(network, "/") {
			return network + found[len(bare):]
		}
		return found
	})
}
