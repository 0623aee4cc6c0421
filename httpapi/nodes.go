package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Codes of nodes.
const (
	codeNodeNotFound         domain.Code = "node_not_found"        // no such node is there now
	codeNodeNotDrainable     domain.Code = "node_not_drainable"    // it takes no agents
	codeNodeNotRevocable     domain.Code = "node_not_revocable"    // it is a control plane
	codeDirectoryUnavailable domain.Code = "directory_unavailable" // who is where cannot be asked now
)

// Nodes knows the processes of the cluster that are there now, and reaches their
// sessions. It is the directory's and not the log's: it can be away while
// commands go on.
type Nodes interface {
	// Nodes gives all that are there, in order.
	Nodes(ctx context.Context) ([]NodeStatus, error)
	// Drain asks a node to send its agents elsewhere and take no new ones; ErrNoNode
	// when it is not there. It returns before the node has.
	Drain(ctx context.Context, id string) error
	// Expel ends what a node that was revoked has in the directory: its record, its lease
	// and its sessions.
	Expel(ctx context.Context, id string) error
	// Disconnect ends the sessions of a client wherever they are, and gives the
	// nodes that had them, which are told.
	Disconnect(ctx context.Context, clientID int64) (nodes []string, err error)
}

// ErrNoNode is what [Nodes] says of a node that is not there.
var ErrNoNode = errors.New("httpapi: there is no such node")

// Roles of a node.
const (
	RoleControl   = "control"
	RoleForwarder = "forwarder"
)

// NodeStatus is what is known of one process of the cluster.
type NodeStatus struct {
	ID      string
	Roles   []string
	State   string // active or draining
	Version string
	Agents  string // host:port agents connect to, "" = none
	Bridge  string // host:port other forwarders connect to, "" = none
	API     string // host:port of the REST API, "" = none, or the one that was asked
	// Public is the host of its public ports, which are FirstPort to LastPort; "" = none.
	Public              string
	FirstPort, LastPort int
	Checked             string // MAPPING:LETTERS, with commas between: the health of targets, see domain.TargetUp
	ClosedPorts         string // of those that mappings have, why some cannot be opened
	// HostsURL is what visitors ask for when it serves public hosts, with * for the label.
	HostsURL string
	// TLSURL is the same for hosts whose TLS it passes through.
	TLSURL  string
	Clients int
	Streams int
	Since   time.Time
	Seen    time.Time
	Leases  []string // work it does for all control planes
}

// Node is a node as the API shows it.
type Node struct {
	NodeID  string    `json:"node_id" example:"node-001"`
	Roles   []string  `json:"roles" nullable:"false" doc:"forwarder: agents connect to it; control: it runs the control plane" example:"[\"forwarder\"]"`
	State   string    `json:"state" enum:"active,draining" doc:"draining: the node accepts no new agents and streams, and ends when its streams have ended" example:"active"`
	Version string    `json:"version" example:"0.1.0"`
	Agents  *string   `json:"agents_address" doc:"The address for agents; null for none" example:"192.0.2.10:8080"`
	Bridge  *string   `json:"bridge_address" doc:"The address for other forwarders; null for none" example:"192.0.2.10:50052"`
	API     *string   `json:"api_address" doc:"The address of the REST API; null for none" example:"192.0.2.10:9000"`
	Public  *string   `json:"public_ports" doc:"The public ports of the node, host:first-last; null when it has none" example:"192.0.2.10:20000-20099"`
	Closed  *string   `json:"closed_ports" doc:"Public ports of mappings that the node cannot open, with the reason; null when all are open" example:"20007: address already in use"`
	Hosts   *string   `json:"public_hosts" doc:"The URL of public hosts, with * for the name; null when the node serves none" example:"http://*.t.example.org:8080"`
	TLS     *string   `json:"public_tls_hosts" doc:"The URL of public hosts whose TLS the node passes through to tls mappings, with * for the name; null when it does not" example:"https://*.t.example.org:8443"`
	Clients int       `json:"clients" doc:"The agents that are connected to the node" example:"1200"`
	Streams int       `json:"streams" doc:"The streams that are open at the node, or being opened" example:"85"`
	Since   time.Time `json:"since" doc:"When it started" example:"2026-01-02T15:04:05Z"`
	Seen    time.Time `json:"seen" doc:"The last heartbeat. A node without a heartbeat for 15 seconds is gone" example:"2026-01-02T15:09:05Z"`
	Leases  []string  `json:"leases" nullable:"false" doc:"The duties that the node has for all control planes: relay, projector" example:"[\"relay\"]"`
}

// NodePage is the list of nodes: all of them.
type NodePage struct {
	Items []Node  `json:"items" nullable:"false" doc:"The nodes that run now, forwarders first"`
	Next  *string `json:"next" doc:"Always null: there is one page" example:"null"`
}

// Drained is the answer of POST /nodes/{id}/drain.
type Drained struct {
	NodeID string `json:"node_id" example:"node-001"`
	State  string `json:"state" enum:"draining" doc:"The requested state. GET /nodes/{id} shows when the node has reached it" example:"draining"`
}

// Revoked is the answer of POST /nodes/{id}/revoke.
type Revoked struct {
	NodeID string `json:"node_id" example:"node-001"`
	State  string `json:"state" enum:"revoked" doc:"The node is not trusted again, and its id is not used again" example:"revoked"`
}

type revokeAnswer struct {
	Position domain.Position `header:"X-Position" doc:"The position in the log of this write"`
	Replayed string          `header:"Idempotency-Replayed" doc:"true when the Idempotency-Key was used before and nothing was written now"`
	Body     Revoked
}

// NodePath is the path of one node.
type NodePath struct {
	ID string `path:"id" maxLength:"64" pattern:"^[a-z0-9-]+$" doc:"The node's id" example:"node-001"`
}

type drainInput struct {
	NodePath
	KeyHeader
}

// drainAnswer has no ETag: what is shown of a node is not the log's.
type drainAnswer struct {
	Position domain.Position `header:"X-Position" doc:"The position in the log of this write"`
	Replayed string          `header:"Idempotency-Replayed" doc:"true when the Idempotency-Key was used before and nothing was written now"`
	Body     Drained
}

func (a *api) registerNodes() {
	op := operation
	huma.Register(a.huma, op(http.MethodGet, "/nodes", "list-nodes", "nodes", "List the nodes that are there", http.StatusUnprocessableEntity), a.listNodes)
	huma.Register(a.huma, op(http.MethodGet, "/nodes/{id}", "get-node", "nodes", "Show a node", http.StatusNotFound, http.StatusUnprocessableEntity), a.getNode)
	drain := op(http.MethodPost, "/nodes/{id}/drain", "drain-node", "nodes", "Send a node's agents elsewhere, until it is started anew", errorsOfWrite...)
	drain.Description = "The sessions end, and their agents go to other nodes; streams that are open are let end. It is asked of the node as it runs now: one that was " +
		"started since is not meant by a repeat. With 503 `directory_unavailable` the detail says whether it is in the log."
	huma.Register(a.huma, drain, a.drainNode)
	revoke := op(http.MethodPost, "/nodes/{id}/revoke", "revoke-node", "nodes", "End the trust in a node, for ever", errorsOfWrite...)
	revoke.Description = "Control planes and the other nodes refuse its certificate within about a second, its sessions and bridges end, and its id is not used again. The node may be away. " +
		"Whoever has a join token can still join as another node: rotate the token, too (`tunnoxd rotate-join-token`)."
	huma.Register(a.huma, revoke, a.revokeNode)
}

// revokeNode writes into the log that a node is not trusted, which control planes and
// nodes look up there, and then ends what the node has in the directory.
func (a *api) revokeNode(ctx context.Context, in *drainInput) (*revokeAnswer, error) {
	stream, err := domain.ParseStreamID(in.ID)
	if err != nil || stream.Category() != domain.CategoryNode || a.config.Nodes == nil {
		return nil, noNode()
	}
	all, err := a.nodes(ctx)
	if err != nil {
		all = nil // who cannot be asked for now can be revoked all the same
	}
	for _, n := range all {
		if n.ID == in.ID && slices.Contains(n.Roles, RoleControl) {
			return nil, problem(http.StatusConflict, codeNodeNotRevocable, "The node is a control plane, which has the key of the cluster. End its process instead.",
				&Fault{Location: "path.id", Message: "is a control plane"})
		}
	}
	r, err := a.submit(ctx, MatchHeader{KeyHeader: in.KeyHeader}, nil, domain.RevokeNode{ID: stream.Number()})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	if err := a.config.Nodes.Expel(ctx, in.ID); err != nil {
		return nil, a.unfinished(ctx, err, r.Position)
	}
	w := answerOf(r)
	return &revokeAnswer{w.Position, w.Replayed, Revoked{NodeID: in.ID, State: "revoked"}}, nil
}

// nodes asks for all nodes. A process without any knows none.
func (a *api) nodes(ctx context.Context) ([]NodeStatus, error) {
	if a.config.Nodes == nil {
		return nil, nil
	}
	all, err := a.config.Nodes.Nodes(ctx)
	if err != nil {
		return nil, a.undirected(ctx, err)
	}
	return all, nil
}

// undirected is the answer while the directory cannot be asked.
func (a *api) undirected(ctx context.Context, err error) error {
	a.logger.WarnContext(ctx, "directory cannot be asked", "request", tracked(ctx).id, "error", err)
	return problem(http.StatusServiceUnavailable, codeDirectoryUnavailable, "Who is where cannot be asked now. Nothing was done.")
}

func (a *api) listNodes(ctx context.Context, _ *struct{}) (*struct{ Body NodePage }, error) {
	all, err := a.nodes(ctx)
	if err != nil {
		return nil, err
	}
	answer := &struct{ Body NodePage }{NodePage{Items: make([]Node, len(all))}}
	for i, n := range all {
		answer.Body.Items[i] = nodeBody(n)
	}
	return answer, nil
}

func (a *api) getNode(ctx context.Context, in *NodePath) (*struct{ Body Node }, error) {
	n, err := a.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Node }{nodeBody(n)}, nil
}

func (a *api) node(ctx context.Context, id string) (NodeStatus, error) {
	all, err := a.nodes(ctx)
	if err != nil {
		return NodeStatus{}, err
	}
	for _, n := range all {
		if n.ID == id {
			return n, nil
		}
	}
	return NodeStatus{}, noNode()
}

func noNode() *Problem {
	return problem(http.StatusNotFound, codeNodeNotFound, "There is no such node now.",
		&Fault{Location: "path.id", Message: "is no node that is there"})
}

// drainNode writes what is asked for into the log, and then asks the node. The log
// is not where the node learns of it: a node that reads of a drain long after, in
// another life, must not drain.
func (a *api) drainNode(ctx context.Context, in *drainInput) (*drainAnswer, error) {
	stream, err := domain.ParseStreamID(in.ID)
	isNode := err == nil && stream.Category() == domain.CategoryNode
	n, err := a.node(ctx, in.ID)
	switch {
	case err != nil && isNode && in.IdempotencyKey != "":
		return a.drainedBefore(ctx, in, domain.DrainNode{ID: stream.Number()}, err)
	case err != nil:
		return nil, err
	case n.Agents == "" || !isNode:
		return nil, problem(http.StatusConflict, codeNodeNotDrainable, "The node takes no agents. End its process instead.",
			&Fault{Location: "path.id", Message: "is no forwarder"})
	}
	r, err := a.submit(ctx, MatchHeader{KeyHeader: in.KeyHeader}, nil, domain.DrainNode{ID: stream.Number(), Since: n.Since})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	asked, err := made[*domain.Node](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	if asked.Since.Equal(n.Since) { // a repeat may come upon another life of the node
		switch err := a.config.Nodes.Drain(ctx, in.ID); {
		case errors.Is(err, ErrNoNode):
			return nil, noNode()
		case err != nil:
			return nil, a.unfinished(ctx, err, r.Position)
		}
	}
	return drainedOf(in.ID, r), nil
}

// drainedBefore answers a repeat for a node that is not there any more, or cannot
// be asked about; otherwise is for what is no repeat.
func (a *api) drainedBefore(ctx context.Context, in *drainInput, c domain.DrainNode, otherwise error) (*drainAnswer, error) {
	s, err := a.submission(ctx, MatchHeader{KeyHeader: in.KeyHeader}, nil, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	r, err := a.config.Executor.Preview(ctx, s)
	switch {
	case domain.CodeOf(err) == domain.CodeIdempotencyMismatch:
		return nil, a.refusal(ctx, err)
	case err != nil || !r.Duplicate:
		return nil, otherwise
	case in.DryRun:
		return nil, a.refusal(ctx, a.dryRun(ctx, s))
	}
	return drainedOf(in.ID, r), nil
}

func drainedOf(id string, r domain.Receipt) *drainAnswer {
	w := answerOf(r)
	return &drainAnswer{w.Position, w.Replayed, Drained{NodeID: id, State: "draining"}}
}

// unfinished is the answer when the log has what was asked for, and then the
// directory could not be asked to do it.
func (a *api) unfinished(ctx context.Context, err error, at domain.Position) error {
	a.logger.WarnContext(ctx, "directory cannot be asked", "request", tracked(ctx).id, "position", int64(at), "error", err)
	return problem(http.StatusServiceUnavailable, codeDirectoryUnavailable,
		fmt.Sprintf("It is in the log at position %d, but who is where cannot be asked now, so that it may not have been done. Send it again, with the same Idempotency-Key if it had one.", at))
}

func nodeBody(n NodeStatus) Node {
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	public := ""
	if n.Public != "" {
		public = net.JoinHostPort(n.Public, fmt.Sprintf("%d-%d", n.FirstPort, n.LastPort))
	}
	return Node{NodeID: n.ID, Roles: append([]string{}, n.Roles...), State: n.State, Version: n.Version, Agents: optional(n.Agents),
		Bridge: optional(n.Bridge), API: optional(n.API), Public: optional(public), Closed: optional(n.ClosedPorts), Hosts: optional(n.HostsURL), TLS: optional(n.TLSURL), Clients: n.Clients, Streams: n.Streams,
		Since: n.Since.UTC(), Seen: n.Seen.UTC(), Leases: append([]string{}, n.Leases...)}
}
