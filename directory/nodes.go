package directory

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// NodeState says whether a node accepts new work.
type NodeState string

// The states of a node. A node that has ended has no record.
const (
	NodeActive   NodeState = "active"
	NodeDraining NodeState = "draining" // accepts no new work and lets present work end
)

// Node is a forwarder as other processes see it. Its record is a lease, as a session
// is: a node that does not announce itself any more disappears after [TTL].
type Node struct {
	ID      string    `json:"id"`
	Bridge  string    `json:"bridge"`           // host:port at which other forwarders reach it; "" = they cannot
	Agents  string    `json:"agents"`           // host:port at which agents reach it
	Also    string    `json:"also,omitempty"`   // further addresses for agents, separated by commas
	Public  string    `json:"public,omitempty"` // host at which visitors reach its public ports
	Version string    `json:"version"`
	State   NodeState `json:"state"`
	Clients int       `json:"clients"` // clients connected to it
	Streams int       `json:"streams"` // streams that are being opened or joined at it
	Since   time.Time `json:"since"`   // when it started
	Seen    time.Time `json:"-"`       // when it last announced itself; set by Nodes

	// The first and the last public port; 0 = the node has no public ports.
	FirstPort int `json:"first_port,omitempty"`
	LastPort  int `json:"last_port,omitempty"`
	// Public ports that should be open and cannot be opened, with the reason: only a
	// few of them.
	ClosedPorts string `json:"closed_ports,omitempty"`

	// The health of targets as the node knows it: MAPPING:LETTERS, with commas between.
	Checked string `json:"checked,omitempty"`

	// The domain whose labels are the public hosts it serves, and the URL that visitors
	// ask for, with * for the label; "" = it serves none.
	BaseDomain string `json:"base_domain,omitempty"`
	HostsURL   string `json:"hosts_url,omitempty"`
	// The same for the hosts whose TLS it passes through unopened; "" = it passes none.
	TLSURL string `json:"tls_url,omitempty"`
	// The host at which visitors find the REST API, in full; "" = none.
	APIHost string `json:"api_host,omitempty"`
}

// HasPort reports whether a public port belongs to the node.
func (n Node) HasPort(port int) bool {
	return n.FirstPort != 0 && port >= n.FirstPort && port <= n.LastPort
}

// Addresses gives the addresses at which agents reach the node. The first one is its
// main address.
func (n Node) Addresses() []string {
	if n.Also == "" {
		return []string{n.Agents}
	}
	return append([]string{n.Agents}, strings.Split(n.Also, ",")...)
}

// ErrNotLeased is returned by Announce when the node's id is leased to another owner or
// to none.
var ErrNotLeased = errors.New("directory: the node id is not leased to this owner")

// Nodes is the contract with which forwarders find each other. Both implementations of
// [Directory] implement it too.
type Nodes interface {
	// Announce records the node until TTL, while its id is leased to owner (LeaseID).
	// So a node that has lost its id cannot overwrite the record of the node that has
	// it.
	Announce(ctx context.Context, owner string, n Node) error
	// Withdraw removes the record of owner's node. The id stays leased.
	Withdraw(ctx context.Context, owner, id string) error
	// Nodes gives the announced nodes in order of their ids: those with the given ids,
	// or all.
	Nodes(ctx context.Context, ids ...string) ([]Node, error)
	// Survey is Nodes for callers that ask often. A caller passes the mark of the last
	// answer. While no node has come, left or changed, apart from its load, the answer
	// has the same mark and no nodes. The answer may be a second old.
	Survey(ctx context.Context, mark string) (nodes []Node, now string, err error)
}

// SortNodes orders nodes by the numbers in their ids: node-1000 is after node-999.
func SortNodes(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
	})
}
