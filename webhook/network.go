package webhook

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// Networks says which addresses may be dialled for a webhook. Users name the addresses,
// and the server dials them. Without this check anybody could reach, through the
// server, addresses that only the server can reach.
type Networks struct {
	allowed []netip.Prefix
}

// closed are the networks that are not on the Internet: those in IANA's special-purpose
// registries that are not globally reachable, and those through which an IPv4 address
// can be reached under another address.
var closed = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", // Azure's own service, which answers every machine there
	"2001::/23",        // protocol assignments, Teredo among them
	"2001:db8::/32", "2002::/16", "3fff::/20",
)

// global contains all addresses of the IPv6 Internet. Everything else is loopback,
// local, mapped, translated (64:ff9b::/96), multicast or unused.
var global = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// ParseNetworks reads networks, separated by commas, that may be reached although they
// are closed.
func ParseNetworks(text string) (Networks, error) {
	var n Networks
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return Networks{}, fmt.Errorf("%q is not a network, for example 10.1.0.0/16", part)
		}
		if p.Addr().Is4In6() {
			return Networks{}, fmt.Errorf("%q: write it as an IPv4 network", part)
		}
		n.allowed = append(n.allowed, p.Masked())
	}
	return n, nil
}

// Allows reports whether an address may be dialled.
func (n Networks) Allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range n.allowed {
		if p.Contains(addr) {
			return true
		}
	}
	if addr.Is6() && !global.Contains(addr) {
		return false
	}
	for _, p := range closed {
		if p.Contains(addr) {
			return false
		}
	}
	return addr.IsValid()
}

// errClosed is the reason why an address is not dialled. It names no address, so that
// nobody learns to which address a name resolves inside.
type errClosed struct{}

func (errClosed) Error() string {
	return "the address is in a network that webhooks may not reach (--webhook-networks)"
}

// Guard has the form of [net.Dialer.Control]. It decides at the only place that cannot be bypassed: on the address that is
// about to be dialled, after the name was resolved.
func (n Networks) Guard(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &net.AddrError{Err: "not an address", Addr: address}
	}
	if !n.Allows(to.Addr()) {
		return errClosed{}
	}
	return nil
}
