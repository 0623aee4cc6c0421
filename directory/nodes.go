package directory

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// NodeState is what a node does with new work.
type NodeState string

// The states of a node. One that has ended has no record.
const (
	NodeActive   NodeState = "active"
	NodeDraining NodeState = "draining" // takes nothing new and lets work end
)

// Node is a forwarder as others see it. Its record is a lease like a session's:
// who does not announce itself any more is gone after [TTL].
type Node struct {
	ID      string    `json:"id"`
	Bridge  string    `json:"bridge"`           // host:port other forwarders reach it at; "" = none does
	Agents  string    `json:"agents"`           // host:port agents reach it at
	Also    string    `json:"also,omitempty"`   // further ones, with commas between
	Public  string    `json:"public,omitempty"` // host that visitors reach its public ports at
	Version string    `json:"version"`
	State   NodeState `json:"state"`
	Clients int       `json:"clients"` // connected to it
	Streams int       `json:"streams"` // being opened or joined at it
	Since   time.Time `json:"since"`   // when it started
	Seen    time.Time `json:"-"`       // when it announced itself; given by Nodes

	// Its public ports, both ends included; 0 = it has none.
	FirstPort int `json:"first_port,omitempty"`
	LastPort  int `json:"last_port,omitempty"`
	// Those that should be open and cannot be, with the reason: a few of them.
	ClosedPorts string `json:"closed_ports,omitempty"`
}

// HasPort reports whether a public port is one of the node's.
func (n Node) HasPort(port int) bool {
	return n.FirstPort != 0 && port >= n.FirstPort && port <= n.LastPort
}

// Addresses gives where agents reach the node, the first being the one it is known by.
func (n Node) Addresses() []string {
	if n.Also == "" {
		return []string{n.Agents}
	}
	return append([]string{n.Agents}, strings.Split(n.Also, ",")...)
}

// ErrNotLeased is returned by Announce when the node's id is leased to another
// owner, or to nobody.
var ErrNotLeased = errors.New("directory: the node id is not leased to this owner")

// Nodes is where forwarders find each other. Both implementations of [Directory]
// are one too.
type Nodes interface {
	// Announce records the node until TTL, as long as its id is leased to owner
	// (LeaseID): a node that lost its id cannot overwrite the record of who has it.
	Announce(ctx context.Context, owner string, n Node) error
	// Withdraw takes back the record of owner's node; the id stays leased.
	Withdraw(ctx context.Context, owner, id string) error
	// Nodes gives the nodes that are there, by id: those asked for, or all.
	Nodes(ctx context.Context, ids ...string) ([]Node, error)
	// Survey is Nodes for who asks again and again: as long as no node has come, gone
	// or changed, loads aside, since an answer with that mark, it gives the mark and no
	// nodes. It may be a second late.
	Survey(ctx context.Context, mark string) (nodes []Node, now string, err error)
}

// SortNodes orders nodes by the numbers in their ids: node-1000 is after node-999.
func SortNodes(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
	})
}
