package domain

import "time"

// Node is a forwarder as the log knows it: what operators have asked of it. Where
// it is and what it does now is presence, and no history.
//
// Rules: a node belongs to no account. What is asked of a node is asked of one life
// of it, told by when that began: a node that starts anew takes agents again,
// whatever was asked of the one before it.
type Node struct {
	ID        string    `json:"id"`    // as operators see it: node-001
	Since     time.Time `json:"since"` // when the life began that was asked to drain last
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// NodeDrainRequested asks a node to send its agents elsewhere and let its work end.
// Like [ClientDisconnectRequested] it is carried out when it is asked for and never
// because it is read.
type NodeDrainRequested struct {
	NodeID string    `json:"node_id"`
	Since  time.Time `json:"since"` // when the life of the node began that is meant
}

// EventName implements [Event].
func (NodeDrainRequested) EventName() string { return "node_drain_requested" }

// Exists implements [Aggregate].
func (n *Node) Exists() bool { return n.ID != "" }

// Clone implements [Aggregate].
func (n *Node) Clone() Aggregate {
	c := *n
	return &c
}

// Apply implements [Aggregate].
func (n *Node) Apply(event Event, at time.Time) {
	e, ok := event.(NodeDrainRequested)
	if !ok {
		return
	}
	if !n.Exists() {
		n.CreatedAt = at
	}
	n.ID, n.Since, n.UpdatedAt = e.NodeID, e.Since, at
}

// DrainNode asks a node to send its agents elsewhere. Asking again is another
// request of the log, and nothing new to the node.
type DrainNode struct {
	ID    int64     // the number in the node's id
	Since time.Time // when the node started, as it says itself
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
