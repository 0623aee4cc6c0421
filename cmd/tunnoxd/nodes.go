package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/httpapi"
)

// nodes tells httpapi of the processes of the cluster: forwarders from the
// directory, control planes from the database. Where there is one process, it is
// both.
type nodes struct {
	directory presences
	shared    *controlpostgres.Cluster // nil: the process has no other beside it
	log       *slog.Logger
}

// Nodes implements httpapi.Nodes.
func (n nodes) Nodes(ctx context.Context) ([]httpapi.NodeStatus, error) {
	forwarders, err := n.directory.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	roles := []string{httpapi.RoleForwarder}
	if n.shared == nil {
		roles = []string{httpapi.RoleControl, httpapi.RoleForwarder}
	}
	var all []httpapi.NodeStatus
	for _, f := range forwarders {
		all = append(all, httpapi.NodeStatus{ID: f.ID, Roles: roles, State: string(cmp.Or(f.State, directory.NodeActive)), Version: f.Version,
			Agents: f.Agents, Bridge: f.Bridge, Clients: f.Clients, Streams: f.Streams, Since: f.Since, Seen: f.Seen,
			Public: f.Public, FirstPort: f.FirstPort, LastPort: f.LastPort, ClosedPorts: f.ClosedPorts, Checked: f.Checked, HostsURL: f.HostsURL, TLSURL: f.TLSURL})
	}
	if n.shared == nil {
		return all, nil
	}
	controls, err := n.shared.ControlPlanes(ctx)
	if err != nil {
		// Forwarders can be seen and drained without the database.
		n.log.WarnContext(ctx, "cannot list control planes", "error", err)
		return all, nil
	}
	for _, c := range controls {
		status := httpapi.NodeStatus{ID: c.ID, Roles: []string{httpapi.RoleControl}, State: string(directory.NodeActive), Version: c.Version,
			API: c.API, Since: c.Since, Seen: c.Seen}
		for _, l := range c.Leases {
			status.Leases = append(status.Leases, l.Name)
		}
		all = append(all, status)
	}
	return all, nil
}

// Drain implements httpapi.Nodes.
func (n nodes) Drain(ctx context.Context, id string) error {
	err := n.directory.RequestDrain(ctx, id)
	if errors.Is(err, directory.ErrNoNode) {
		return httpapi.ErrNoNode
	}
	return err
}

// Expel implements httpapi.Nodes.
func (n nodes) Expel(ctx context.Context, id string) error { return n.directory.Expel(ctx, id) }

// Disconnect implements httpapi.Nodes.
func (n nodes) Disconnect(ctx context.Context, clientID int64) ([]string, error) {
	return n.directory.Disconnect(ctx, clientID)
}
