package main

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
)

// localCommander has agents' commands carried out for the forwarder beside its
// control plane; other forwarders ask the State service.
func (cp *controlPlane) localCommander(node string) *control.Local {
	return control.NewLocal(node, cp.store, func(ctx context.Context) (domain.Position, error) {
		head, err := cp.store.Head(ctx)
		return head.Position, err
	}, cp.commands, cp.public, cp.proofs)
}

// visitorAddresses gives the address or URL with which visitors reach a mapping; "" for
// none. The directory is asked once for a list, and only when the list has a public
// mapping.
func visitorAddresses(nodes directory.Nodes, log *slog.Logger) func(context.Context) func(*domain.Mapping) string {
	return func(ctx context.Context) func(*domain.Mapping) string {
		known := sync.OnceValue(func() []directory.Node {
			all, err := nodes.Nodes(ctx)
			if err != nil {
				log.Warn("the directory cannot be asked for public addresses", "error", err)
			}
			return all
		})
		return func(m *domain.Mapping) string {
			if !m.Public() {
				return ""
			}
			for _, n := range known() {
				if m.PublicPort.First != 0 && n.Public != "" && n.HasPort(m.PublicPort.First) && n.HasPort(m.PublicPort.Last) {
					return net.JoinHostPort(n.Public, m.PublicPort.String())
				}
				if m.PublicHost == "" {
					continue
				}
				if url := hostsOf[m.Protocol](n); url != "" {
					return m.URL(url)
				}
			}
			return ""
		}
	}
}
