package main

import (
	"context"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
)

// localCommander has agents' commands carried out for the forwarder beside its
// control plane; other forwarders ask the State service.
func (cp *controlPlane) localCommander(node string) *control.Local {
	return control.NewLocal(node, cp.store, func(ctx context.Context) (domain.Position, error) {
		head, err := cp.store.Head(ctx)
		return head.Position, err
	}, cp.commands)
}
