package domain

import (
	"maps"
	"slices"
	"time"
)

// Node is a forwarder in the log: the keys that it proves itself with, the names that
// agents may reach it by, and the requests that operators have made of it. The address
// and the present state of a node are in the directory, not in the log.
//
// Rules: a node belongs to no account. A request is for one life of the node, named by
// the time when that life began. A node that starts again accepts agents again. While a
// certificate of a node is valid, only who has its key gets another one. A node that was
// revoked is never trusted again, and its id is never used again.
type Node struct {
	ID        string               `json:"id"`               // for operators, for example node-001
	Since     time.Time            `json:"since"`            // the beginning of the life that was asked to drain last
	Keys      map[string]time.Time `json:"keys,omitempty"`   // by [NodeKeyName]: until when its certificate is valid
	Names     []string             `json:"names,omitempty"`  // host names and addresses for agents; nil = none was registered
	Tokens    []string             `json:"tokens,omitempty"` // for one use, that it joined with
	Revoked   bool                 `json:"revoked,omitempty"`
	CreatedAt time.Time            `json:"created_at"`
	UpdatedAt time.Time            `json:"updated_at"`
}

// NodeDrainRequested asks a node to send its agents to other nodes and to end when its
// work has ended. Like [ClientDisconnectRequested] it is carried out once, when it is
// made.
type NodeDrainRequested struct {
	NodeID string    `json:"node_id"`
	Since  time.Time `json:"since"` // the beginning of the life that is asked
}

// EventName implements [Event].
func (NodeDrainRequested) EventName() string { return "node_drain_requested" }

// Exists implements [Aggregate].
func (n *Node) Exists() bool { return n.ID != "" }

// Clone implements [Aggregate].
func (n *Node) Clone() Aggregate {
	c := *n
	c.Keys, c.Names, c.Tokens = maps.Clone(n.Keys), slices.Clone(n.Names), slices.Clone(n.Tokens)
	return &c
}

// Apply implements [Aggregate].
func (n *Node) Apply(event Event, at time.Time) {
	was := n.Exists()
	switch e := event.(type) {
	case NodeDrainRequested:
		n.ID, n.Since = e.NodeID, e.Since
	case NodeCertified:
		n.certified(e, at)
	case NodeRevoked:
		n.ID, n.Revoked, n.Keys = e.NodeID, true, nil
	default:
		return
	}
	if !was {
		n.CreatedAt = at
	}
	n.UpdatedAt = at
}

// DrainNode asks a node to send its agents to other nodes. A repeat writes another event
// and has no further effect.
type DrainNode struct {
	ID    int64     // the number in the node's id
	Since time.Time // when the node started, from its own announcement
}

// CommandName implements [Command].
func (DrainNode) CommandName() string { return "drain_node" }

// Subject implements [Command].
func (c DrainNode) Subject() StreamID { return NodeStream(c.ID) }

// Account implements [Command].
func (DrainNode) Account() int64 { return 0 }

// Reads implements [Command].
func (c DrainNode) Reads() []StreamID { return []StreamID{NodeStream(c.ID)} }

// Decide implements [Command].
func (c DrainNode) Decide(States) (Decision, error) {
	var f faults
	if c.ID <= 0 {
		f.add("node_id", "must be positive")
	}
	if c.Since.IsZero() {
		f.add("since", "must be set")
	}
	if err := f.err("The node cannot be drained as asked."); err != nil {
		return Decision{}, err
	}
	var d Decision
	d.add(NodeStream(c.ID), NodeDrainRequested{NodeID: string(NodeStream(c.ID)), Since: c.Since.UTC().Round(0)})
	return d, nil
}
