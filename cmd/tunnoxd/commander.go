package main

import (
	"context"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
)

// commander has agents' commands carried out where the control plane is: over the
// State service, or in this process.
type commander struct {
	control interface {
		Execute(ctx context.Context, c control.Command) (control.Result, error)
	}
}

// Execute implements forwarder.Commander.
func (c commander) Execute(ctx context.Context, in forwarder.Command) (forwarder.Result, error) {
	command := control.Command{ClientID: in.ClientID, Key: in.Key, Source: in.Source, Request: in.Session, Create: in.Create, Delete: in.Delete}
	if in.Redeem != nil {
		command.Redeem = &control.Redemption{Code: in.Redeem.Code, Name: in.Redeem.Name, LocalHost: in.Redeem.LocalHost, LocalPort: in.Redeem.LocalPort}
	}
	if in.List != nil {
		command.List = &control.MappingPage{After: in.List.After, Limit: in.List.Limit}
	}
	r, err := c.control.Execute(ctx, command)
	if err != nil {
		return forwarder.Result{}, err
	}
	result := forwarder.Result{Next: r.Next, Mappings: make([]domain.Mapping, len(r.Mappings))}
	for i, m := range r.Mappings {
		result.Mappings[i] = m.State
	}
	return result, nil
}

// localCommander is for the forwarder beside its control plane.
func (cp *controlPlane) localCommander(node string) commander {
	return commander{control.NewLocal(node, cp.store, func(ctx context.Context) (domain.Position, error) {
		head, err := cp.store.Head(ctx)
		return head.Position, err
	}, cp.executor)}
}
