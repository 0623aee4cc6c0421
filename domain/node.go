package domain

import "time"

// Node is a forwarder in the log: the requests that operators have made of it. The
// address and the present state of a node are in the directory, not in the log.
//
// Rules: a node belongs to no account. A request is for one life of the node, named by
// the time when that life began. A node that starts again accepts agents again.
type Node struct {
	ID        string    `json:"id"`    // for operators, for example node-001
	Since     time.Time `json:"since"` // the beginning of the life that was asked to drain last
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
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
