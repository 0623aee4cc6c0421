package httpapi

import (
	"context"
	"net"

	"github.com/tunnox-net/tunnox/domain"
)

// public gives where visitors reach mappings with a public port or host: at the first
// node that has it. Where nodes are is asked once, and only when there is such a
// mapping. While the directory is away it is not known, and left out.
func (a *api) public(ctx context.Context) func(m *domain.Mapping) (address, url *string) {
	var nodes []NodeStatus
	asked := false
	return func(m *domain.Mapping) (address, url *string) {
		if !m.Public() || a.config.Nodes == nil {
			return nil, nil
		}
		if !asked {
			asked = true
			var err error
			if nodes, err = a.config.Nodes.Nodes(ctx); err != nil {
				a.logger.WarnContext(ctx, "directory cannot be asked for public addresses", "request", tracked(ctx).id, "error", err)
			}
		}
		for _, n := range nodes {
			if address == nil && m.PublicPort.First != 0 && n.Public != "" && (domain.PortRange{First: n.FirstPort, Last: n.LastPort}).Holds(m.PublicPort) {
				at := net.JoinHostPort(n.Public, m.PublicPort.String())
				address = &at
			}
			hosts := n.HostsURL
			if m.Protocol == domain.ProtocolTLS {
				hosts = n.TLSURL
			}
			if url == nil && m.PublicHost != "" && hosts != "" {
				at := m.URL(hosts)
				url = &at
			}
		}
		return address, url
	}
}

// mappingShown is one mapping as the API shows it.
func (a *api) mappingShown(ctx context.Context, m *domain.Mapping) Mapping {
	return mappingBody(m, a.public(ctx))
}
