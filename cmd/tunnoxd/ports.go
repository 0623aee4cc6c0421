package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
)

// maxPublicPorts bounds a range. Each port in use has a listener of its own, and
// whoever looks a range up in the log looks at each of them.
const maxPublicPorts = 10_000

// parsePorts reads FROM-TO, or one port.
func parsePorts(text string) (domain.PortRange, error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		to = from
	}
	first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	switch {
	case err1 != nil || err2 != nil || first == 0 || last < first:
		return domain.PortRange{}, fmt.Errorf("%q is not FROM-TO, for example 20000-20099", text)
	case last-first >= maxPublicPorts:
		return domain.PortRange{}, fmt.Errorf("%q has more than %d ports", text, maxPublicPorts)
	}
	return domain.PortRange{First: int(first), Last: int(last)}, nil
}

// publicPorts are the public ports of this process, nil when it has none. Where they
// listen follows from --public-address: an address of this machine is the only one,
// 0.0.0.0 and :: are all of their family and of both, and anything else is how
// visitors get here from outside, so that every address is listened on.
func (c *config) publicPorts() *forwarder.Ports {
	if c.PublicPorts == "" {
		return nil
	}
	ports, err := parsePorts(c.PublicPorts)
	if err != nil {
		return nil // check has said so
	}
	on := ""
	if ip, err := netip.ParseAddr(c.PublicAddress); err == nil && (ip.IsUnspecified() || ours(ip)) {
		on = c.PublicAddress
	}
	return &forwarder.Ports{First: ports.First, Last: ports.Last, Listen: func(port int) (net.Listener, error) {
		l, err := listenTCP(net.JoinHostPort(on, strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		return c.heralded(l), nil
	}, ListenPacket: func(port int) (*datagram.Socket, error) {
		return listenDatagrams(net.JoinHostPort(on, strconv.Itoa(port)))
	}}
}

// publicHost is where visitors reach the public ports.
func (c *config) publicHost() string {
	if ip, err := netip.ParseAddr(c.PublicAddress); c.PublicAddress != "" && (err != nil || !ip.IsUnspecified()) {
		return c.PublicAddress
	}
	if ips := ownIPs(); len(ips) > 0 {
		return ips[0].String()
	}
	return "127.0.0.1" // a machine without a network is reached from itself
}

// ours reports whether an address is one of this machine's.
func ours(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		network, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(network.IP)
		return ok && own.Unmap() == ip.Unmap().WithZone("")
	})
}

// drawn is how many ports or hosts a command chooses from at a time: each costs a look
// at its event stream.
const drawn = 8

// portRanges gives the ranges of forwarders, each once.
func portRanges(nodes []directory.Node) (ranges []domain.PortRange) {
	for _, n := range nodes {
		r := domain.PortRange{First: n.FirstPort, Last: n.LastPort}
		if n.FirstPort != 0 && !slices.Contains(ranges, r) {
			ranges = append(ranges, r)
		}
	}
	slices.SortFunc(ranges, func(a, b domain.PortRange) int { return a.First - b.First })
	return ranges
}

func portsOf(ranges []domain.PortRange) (ports []int) {
	for _, r := range ranges {
		for port := r.First; port <= r.Last; port++ {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// closedPorts is what the node says of ports it cannot open: a few of them.
func closedPorts(failures map[int]error) string {
	const most = 10
	var said []string
	ports := make([]int, 0, len(failures))
	for port := range failures {
		ports = append(ports, port)
	}
	slices.Sort(ports)
	for _, port := range ports[:min(len(ports), most)] {
		said = append(said, fmt.Sprintf("%d: %v", port, failures[port]))
	}
	if more := len(ports) - most; more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(said, "; ")
}
