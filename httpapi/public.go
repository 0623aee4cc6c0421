package httpapi

import (
	"context"
	"net"
	"strconv"

	"github.com/tunnox-net/tunnox/domain"
)

// publicAddresses gives where visitors reach mappings with a public port: at the first
// node that has it. Where nodes are is asked once, and only when there is such a
// mapping. While the directory is away it is not known, and left out.
func (a *api) publicAddresses(ctx context.Context) func(m *domain.Mapping) *string {
	var nodes []NodeStatus
	asked := false
	return func(m *domain.Mapping) *string {
		if m.PublicPort == 0 || a.config.Nodes == nil {
			return nil
		}
		if !asked {
			asked = true
			var err error
			if nodes, err = a.config.Nodes.Nodes(ctx); err != nil {
				a.logger.WarnContext(ctx, "directory cannot be asked for public addresses", "request", tracked(ctx).id, "error", err)
			}
		}
		for _, n := range nodes {
			if n.Public != "" && m.PublicPort >= n.FirstPort && m.PublicPort <= n.LastPort {
				address := net.JoinHostPort(n.Public, strconv.Itoa(m.PublicPort))
				return &address
			}
		}
		return nil
	}
}

// mappingShown is one mapping as the API shows it.
func (a *api) mappingShown(ctx context.Context, m *domain.Mapping) Mapping {
	return mappingBody(m, a.publicAddresses(ctx))
}
