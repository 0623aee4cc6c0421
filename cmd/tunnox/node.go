package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"

	"github.com/spf13/cobra"
)

func nodeCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "node", path: "/api/v1/nodes", columns: []column{
		field("NODE", "node_id"), field("ROLES", "roles"), field("STATE", "state"), field("CLIENTS", "clients"), field("STREAMS", "streams"),
		field("AGENTS", "agents_address"), field("VERSION", "version"), field("SINCE", "since"), field("LEASES", "leases"),
	}, first: []string{"node_id", "roles", "state", "clients", "streams", "agents_address", "bridge_address", "api_address", "public_ports", "closed_ports", "public_hosts", "public_tls_hosts", "version", "since", "seen", "leases"}}
	cmd := &cobra.Command{Use: "node", Short: "List, show, drain and revoke the nodes of a cluster"}
	drain := r.node("drain NODE", "Send a node's agents elsewhere, until it is started anew", http.MethodPost, "/drain")
	changes(drain)
	ends(drain)
	revoke := r.node("revoke NODE", "End the trust in a node, for ever", http.MethodPost, "/revoke")
	revoke.Long = `End the trust in a node, for ever. Control planes and the other nodes refuse its
certificate within about a second, its sessions and bridges end, and its id is not
used again. Whoever has a join token can still join as another node: rotate the
token, too, with tunnoxd rotate-join-token.`
	changes(revoke)
	ends(revoke)
	cmd.AddCommand(r.listNodes(), r.node("show NODE", "Show one node", http.MethodGet, ""), drain, revoke)
	return cmd
}

// listNodes lists all: there are no pages of nodes.
func (r *resource) listNodes() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the nodes that are there", Args: cobra.NoArgs,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
			b, err := c.call(ctx, http.MethodGet, r.path, nil)
			if err != nil {
				return err
			}
			var p page
			if err := json.Unmarshal(b, &p); err != nil {
				return fmt.Errorf("read list %s: %w", r.path, err)
			}
			return r.api.printList(out, r.columns, p)
		})}
}

// node is a command about one node.
func (r *resource) node(use, short, method, suffix string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: oneNode,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			b, err := c.call(ctx, method, r.path+"/"+args[0]+suffix, nil)
			if err != nil {
				return err
			}
			return r.print(out, b)
		})}
}

var nodeID = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// oneNode checks a node's id before the server is asked, so that a path cannot be
// made of anything else.
func oneNode(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("want one node: %s", cmd.UseLine())
	}
	if !nodeID.MatchString(args[0]) {
		return usageError("%q is not a node; they are called node-001 and so on, see list", args[0])
	}
	return nil
}
