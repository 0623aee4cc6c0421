package httpapi

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/domain"
)

// public is what only the nodes know of a mapping.
type public struct {
	address, url *string
	health       []TargetHealth
}

// public gives where visitors reach mappings with a public port or host, at the first
// node that has it, and what health checks have found. The nodes are asked once, and only
// when there is such a mapping. While the directory is away nothing of that is known.
func (a *api) public(ctx context.Context) func(m *domain.Mapping) public {
	var nodes []NodeStatus
	asked := false
	return func(m *domain.Mapping) (p public) {
		if !m.Public() && m.HealthCheck == nil || a.config.Nodes == nil {
			return p
		}
		if !asked {
			asked = true
			var err error
			if nodes, err = a.config.Nodes.Nodes(ctx); err != nil {
				a.logger.WarnContext(ctx, "directory cannot be asked what nodes know of mappings", "request", tracked(ctx).id, "error", err)
			}
		}
		for _, n := range nodes {
			if p.address == nil && m.PublicPort.First != 0 && n.Public != "" && (domain.PortRange{First: n.FirstPort, Last: n.LastPort}).Holds(m.PublicPort) {
				at := net.JoinHostPort(n.Public, m.PublicPort.String())
				p.address = &at
			}
			hosts := n.HostsURL
			if m.Protocol == domain.ProtocolTLS {
				hosts = n.TLSURL
			}
			if p.url == nil && m.PublicHost != "" && hosts != "" {
				at := m.URL(hosts)
				p.url = &at
			}
		}
		if m.HealthCheck != nil {
			p.health = healthOf(m, nodes)
		}
		return p
	}
}

// healthOf joins what the nodes say of the targets of a mapping.
func healthOf(m *domain.Mapping, nodes []NodeStatus) []TargetHealth {
	all := []TargetHealth{}
	for i, t := range m.AllTargets() {
		up, down := 0, 0
		for _, n := range nodes {
			switch letters := checkedOf(n.Checked, m.ID); {
			case i >= len(letters):
			case letters[i] == domain.TargetUp:
				up++
			case letters[i] == domain.TargetDown:
				down++
			}
		}
		state := "unknown"
		switch {
		case up > 0 && down > 0:
			state = "partly"
		case up > 0:
			state = "up"
		case down > 0:
			state = "down"
		}
		all = append(all, TargetHealth{ClientID: t.ClientID, Target: t.Target, State: state})
	}
	return all
}

// checkedOf gives the letters that a node has for a mapping.
func checkedOf(checked string, id int64) string {
	for part := range strings.SplitSeq(checked, ",") {
		if letters, ok := strings.CutPrefix(part, strconv.FormatInt(id, 10)+":"); ok {
			return letters
		}
	}
	return ""
}

// mappingShown is one mapping as the API shows it.
func (a *api) mappingShown(ctx context.Context, m *domain.Mapping) Mapping {
	return mappingBody(m, a.public(ctx))
}
