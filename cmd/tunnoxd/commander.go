package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"
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
	}, cp.commands, cp.public)
}

// publicDesk tells where visitors reach mappings. Where nodes are is asked once for a
// list, and only when there is a mapping with a public port in it.
func publicDesk(nodes directory.Nodes, log *slog.Logger) func(context.Context) func(*domain.Mapping) string {
	return func(ctx context.Context) func(*domain.Mapping) string {
		known := sync.OnceValue(func() []directory.Node {
			all, err := nodes.Nodes(ctx)
			if err != nil {
				log.Warn("the directory cannot be asked for public addresses", "error", err)
			}
			return all
		})
		return func(m *domain.Mapping) string {
			if m.PublicPort == 0 {
				return ""
			}
			for _, n := range known() {
				if n.Public != "" && n.HasPort(m.PublicPort) {
					return net.JoinHostPort(n.Public, strconv.Itoa(m.PublicPort))
				}
			}
			return ""
		}
	}
}
