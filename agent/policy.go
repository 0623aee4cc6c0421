package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Policy says which services the target agent may dial. The forwarder proposes,
// the policy consents.
//
// The zero Policy allows loopback addresses only. Entries add to that. A unix socket or a
// directory is allowed by an entry of its own only, and not by "*". Link-local
// and cloud metadata addresses hand out credentials to whoever can reach them,
// so they are allowed only by an entry that names the address or a network
// inside their range; "*", a wide network such as 0.0.0.0/0 and a host name that
// resolves to one of them do not.
type Policy struct {
	rules    []rule
	places   []place // unix sockets and directories, which only an entry of their own allows
	narrowed bool    // loopback addresses need an entry too

	list   []ruled // not nil: these decide, and nothing above
	source string  // of list
}

// WithoutLoopback gives the policy that allows loopback addresses only by an entry. The
// server, and other clients of the same user, may otherwise reach every port of this
// machine.
func (p Policy) WithoutLoopback() Policy {
	p.narrowed = true
	return p
}

// rule is one entry: a name, a network, or anything, and a range of ports.
type rule struct {
	any         bool
	name        string       // lower case, without the final dot; "" = by network
	network     netip.Prefix // valid when name is "" and any is false
	first, last uint16
}

// Addresses that are denied unless named. The networks are link-local
// (RFC 3927, RFC 4291); the addresses are where clouds keep instance metadata.
var guarded = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::254/128"),  // AWS over IPv6
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google Cloud over IPv6
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	netip.MustParsePrefix("0.0.0.0/8"),          // "this host": reaches loopback under another name
	netip.MustParsePrefix("::/128"),             // the same in IPv6
	netip.MustParsePrefix("255.255.255.255/32"), // limited broadcast
	netip.MustParsePrefix("224.0.0.0/4"),        // multicast
	netip.MustParsePrefix("ff00::/8"),           // multicast
	netip.MustParsePrefix("64:ff9b:1::/48"),     // local-use NAT64: embeds any IPv4 address
	netip.MustParsePrefix("2002::/16"),          // 6to4: embeds any IPv4 address
	netip.MustParsePrefix("2001::/32"),          // Teredo: embeds any IPv4 address
	netip.MustParsePrefix("::ffff:0:0:0/96"),    // IPv4-translated (RFC 2765)
}

var (
	nat64          = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052, the last 32 bits are an IPv4 address
	ipv4Compatible = netip.MustParsePrefix("::/96")        // RFC 4291 §2.5.5.1, deprecated
)

const allowForms = "write HOST:PORT, HOST:FROM-TO, CIDR:PORT or *, where a port may be * " +
	"and IPv6 stands in brackets, for example 10.0.0.5:5432, db.internal:5000-5010, 10.0.0.0/8:443, [fd12::/16]:*; " +
	"or unix:PATH for a unix socket, file:PATH for a directory with all below it"

// ParsePolicy reads the entries of --allow. Every wrong entry is named in the
// error, with how to write it.
func ParsePolicy(entries []string) (Policy, error) {
	var p Policy
	var faults []error
	for _, entry := range entries {
		if at, ok, err := parseAllowedPlace(strings.TrimSpace(entry)); ok {
			if err != nil {
				faults = append(faults, fmt.Errorf("allow entry %q: %w", entry, err))
			}
			p.places = append(p.places, at)
			continue
		}
		r, err := parseRule(strings.TrimSpace(entry))
		if err != nil {
			faults = append(faults, fmt.Errorf("allow entry %q: %w", entry, err))
			continue
		}
		p.rules = append(p.rules, r)
	}
	if len(faults) > 0 {
		return Policy{}, fmt.Errorf("%w; %s", errors.Join(faults...), allowForms)
	}
	return p, nil
}

func parseRule(entry string) (rule, error) {
	if entry == "*" {
		return rule{any: true, first: 1, last: 65535}, nil
	}
	host, ports, err := cutPorts(entry)
	if err != nil {
		return rule{}, err
	}
	r, err := parseHost(host)
	if err != nil {
		return rule{}, err
	}
	r.first, r.last, err = parsePorts(ports)
	return r, err
}

// cutPorts separates host and ports. A bare IPv6 address is refused: whether its
// last group is a port cannot be told.
func cutPorts(entry string) (host, ports string, err error) {
	if rest, ok := strings.CutPrefix(entry, "["); ok {
		inside, after, closed := strings.Cut(rest, "]")
		if !closed {
			return "", "", errors.New("the bracket is not closed")
		}
		if !strings.Contains(inside, ":") {
			return "", "", errors.New("brackets are for IPv6 addresses and networks")
		}
		ports, ok = strings.CutPrefix(after, ":")
		if !ok {
			return "", "", errors.New("there is no port behind the bracket")
		}
		return inside, ports, nil
	}
	host, ports, ok := strings.Cut(entry, ":")
	if !ok {
		return "", "", errors.New("there is no port")
	}
	if strings.Contains(ports, ":") {
		return "", "", errors.New("an IPv6 address needs brackets")
	}
	return host, ports, nil
}

func parseHost(host string) (rule, error) {
	if host == "*" {
		return rule{any: true}, nil
	}
	if strings.Contains(host, "/") {
		network, err := netip.ParsePrefix(host)
		if err != nil {
			return rule{}, errors.New("the network is not valid")
		}
		if network.Addr().Is4In6() {
			return rule{}, errors.New("write the IPv4 network itself, not its IPv6-mapped form")
		}
		if network.Masked() != network {
			return rule{}, fmt.Errorf("the network has bits behind its prefix; did you mean %s", network.Masked())
		}
		return rule{network: network}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap().WithZone("")
		return rule{network: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if !validName(name) {
		return rule{}, errors.New("the host is neither an IP address nor a host name")
	}
	return rule{name: name}, nil
}

// validName accepts letters, digits, dots, dashes and underscores, and wants a
// letter somewhere in the last label, so that a mistyped address is not taken
// for a name.
func validName(name string) bool {
	if name == "" || len(name) > 253 || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.Contains(name, "..") {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_", c) {
			return false
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.ContainsFunc(last, func(c rune) bool { return c >= 'a' && c <= 'z' })
}

func parsePorts(s string) (first, last uint16, err error) {
	if s == "*" {
		return 1, 65535, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if first, err = parsePort(from); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = parsePort(to); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("the port range %s runs backwards", s)
	}
	return first, last, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("the port %q is not 1 to 65535", s)
	}
	return uint16(n), nil
}

// Allows reports whether the address, to which host resolved, may be dialled at
// the port. For an address given as such, host is its text.
func (p Policy) Allows(host string, addr netip.Addr, port uint16) bool {
	if p.list != nil {
		return p.ask(question{protocol: "tcp", host: host, addr: addr, port: port, now: time.Now()}).allowed
	}
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() && !p.narrowed {
		return true
	}
	meant := embedded(addr)
	guard, isGuarded := guardOf(meant)
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for _, r := range p.rules {
		if port < r.first || port > r.last {
			continue
		}
		switch {
		case isGuarded:
			if r.network.IsValid() && r.network.Contains(meant) && r.network.Bits() >= guard.Bits() {
				return true
			}
		case r.network.IsValid():
			if r.network.Contains(addr) || r.network.Contains(meant) {
				return true
			}
		case r.any, r.name == host:
			return true
		}
	}
	return false
}

// guardOf gives the guarded network the address is in. A rule names the address
// when the rule's network is not wider than this one.
func guardOf(addr netip.Addr) (netip.Prefix, bool) {
	for _, g := range guarded {
		if g.Contains(addr) {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// embedded gives the IPv4 address that an IPv6 address stands for where the
// kernel or a NAT64 gateway would send the packets there, so that a guarded
// address cannot be reached under another spelling.
func embedded(addr netip.Addr) netip.Addr {
	if addr.Is4() || addr.IsUnspecified() {
		return addr
	}
	if nat64.Contains(addr) || ipv4Compatible.Contains(addr) {
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}
