package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Listening says which addresses a server may have this agent listen on. The server
// proposes, the agent's owner consents: who runs the server, or shares a mapping, must
// not open a port of this machine to a network.
//
// The zero Listening allows ports from 1024 of loopback addresses. Entries add to that.
type Listening struct {
	rules []rule
}

const listenForms = "write HOST:PORT, HOST:FROM-TO, CIDR:PORT or *, where a port may be * and IPv6 stands in brackets, " +
	"for example 127.0.0.1:80, 192.168.1.5:8000-8100, 0.0.0.0:8080 for all addresses of this machine"

// firstUnprivileged is the first port that every account of a machine may listen on.
const firstUnprivileged = 1024

// ParseListening reads the entries of --allow-listen. Its error names every wrong entry.
func ParseListening(entries []string) (Listening, error) {
	var l Listening
	var faults []error
	for _, entry := range entries {
		r, err := parseRule(strings.TrimSpace(entry))
		if err == nil && r.name != "" {
			err = errors.New("an agent listens on IP addresses, not on names")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("listen entry %q: %w", entry, err))
			continue
		}
		l.rules = append(l.rules, r)
	}
	if len(faults) > 0 {
		return Listening{}, fmt.Errorf("%w; %s", errors.Join(faults...), listenForms)
	}
	return l, nil
}

// Allows tells whether the agent may listen on an address. To listen on 0.0.0.0 or ::
// is to listen on every address, so it needs an entry that says so: that address, or
// "*".
func (l Listening) Allows(at netip.AddrPort) bool {
	addr, port := at.Addr().Unmap().WithZone(""), at.Port()
	if addr.IsLoopback() && port >= firstUnprivileged {
		return true
	}
	return slices.ContainsFunc(l.rules, func(r rule) bool {
		if port < r.first || port > r.last {
			return false
		}
		if addr.IsUnspecified() && !r.any {
			return r.network.IsSingleIP() && r.network.Addr() == addr
		}
		return r.any || r.network.Contains(addr)
	})
}
