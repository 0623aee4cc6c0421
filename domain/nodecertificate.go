package domain

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

const maxNodeNames = 32 // in a certificate for agents

// Events of the certificates of a node.
type (
	// NodeCertified notes that a key got a certificate of the node.
	NodeCertified struct {
		NodeID string    `json:"node_id"`
		Key    []byte    `json:"key"`             // SHA-256 of the public key
		Until  time.Time `json:"until"`           // when the certificate ends
		Names  []string  `json:"names,omitempty"` // registered from now on; nil = those before
		Token  string    `json:"token,omitempty"` // of a token for one use that was used up
	}
	// NodeRevoked ends the trust in a node, for ever.
	NodeRevoked struct {
		NodeID string `json:"node_id"`
	}
)

// EventName implements [Event].
func (NodeCertified) EventName() string { return "node_certified" }

// EventName implements [Event].
func (NodeRevoked) EventName() string { return "node_revoked" }

// NodeKeyName gives the name of a key in [Node.Keys].
func NodeKeyName(key []byte) string { return hex.EncodeToString(key) }

func (n *Node) certified(e NodeCertified, at time.Time) {
	keys := maps.Clone(n.Keys)
	maps.DeleteFunc(keys, func(_ string, until time.Time) bool { return !at.Before(until) })
	if keys == nil {
		keys = map[string]time.Time{}
	}
	keys[NodeKeyName(e.Key)] = e.Until
	n.ID, n.Keys = e.NodeID, keys
	if e.Names != nil {
		n.Names = e.Names
	}
	if e.Token != "" {
		n.Tokens = append(n.Tokens, e.Token)
	}
}

// Holds reports whether a certificate for the key is valid.
func (n *Node) Holds(key []byte, at time.Time) bool { return at.Before(n.Keys[NodeKeyName(key)]) }

// held reports whether a certificate for any key is valid.
func (n *Node) held(at time.Time) bool {
	for _, until := range n.Keys {
		if at.Before(until) {
			return true
		}
	}
	return false
}

// CertifyNode lets a key have a certificate of a node. The caller has checked the join
// token, or the certificate of the key in Proved.
type CertifyNode struct {
	ID     int64     // the number in the node's id
	Key    []byte    // SHA-256 of the public key to certify
	Proved []byte    // that of the certificate with which the node asks; nil = it asks with a join token
	Names  []string  // to register; nil = those before
	Token  string    // the id of a token for one use; "" = another token, or none
	Until  time.Time // when the certificate will end
	At     time.Time // now
}

// CommandName implements [Command].
func (CertifyNode) CommandName() string { return "certify_node" }

// Subject implements [Command].
func (c CertifyNode) Subject() StreamID { return NodeStream(c.ID) }

// Account implements [Command].
func (CertifyNode) Account() int64 { return 0 }

// Reads implements [Command].
func (c CertifyNode) Reads() []StreamID { return []StreamID{NodeStream(c.ID)} }

// Decide implements [Command].
func (c CertifyNode) Decide(s States) (Decision, error) {
	var f faults
	if c.ID <= 0 {
		f.add("node_id", "must be positive")
	}
	if len(c.Key) != sha256.Size {
		f.add("key", "must be a SHA-256")
	}
	if len(c.Names) > maxNodeNames {
		f.add("names", "must be at most 32")
	}
	for _, name := range c.Names {
		f.text("names", name, 1, 253)
	}
	if err := f.err("The node cannot have this certificate."); err != nil {
		return Decision{}, err
	}
	n, err := s.node(c.ID)
	if err != nil {
		return Decision{}, err
	}
	const taken = "This node id is in use by another key. Start the node with the data directory that has its key, or revoke the node: tunnox node revoke "
	switch {
	case n.Revoked:
		return Decision{}, nodeRevoked(c.ID)
	case !n.held(c.At): // nobody's, or of before certificates were in the log
	case c.Proved != nil && n.Holds(c.Proved, c.At):
	case c.Proved == nil && n.Holds(c.Key, c.At): // a repeat whose answer was lost
	default:
		return Decision{}, refuse(CodeNodeTaken, taken+string(NodeStream(c.ID)))
	}
	e := NodeCertified{NodeID: string(NodeStream(c.ID)), Key: c.Key, Until: c.Until.UTC().Round(0), Names: slices.Clone(c.Names)}
	var d Decision
	switch used := slices.Contains(n.Tokens, c.Token); {
	case c.Token == "" || used && n.Holds(c.Key, c.At):
	case used: // the claim is this node's already
		return Decision{}, refuse(CodeJoinTokenUsed, "This join token was for one use, and was used.")
	default:
		e.Token = c.Token
		d.Claims = []Claim{{Scope: ClaimJoinToken, Value: c.Token, Owner: NodeStream(c.ID)}}
	}
	d.add(NodeStream(c.ID), e)
	return d, nil
}

func nodeRevoked(id int64) error {
	return refuse(CodeNodeRevoked, "The node "+string(NodeStream(id))+" was revoked, and its id is not used again.")
}

// RevokeNode ends the trust in a node. A repeat changes nothing.
type RevokeNode struct{ ID int64 }

// CommandName implements [Command].
func (RevokeNode) CommandName() string { return "revoke_node" }

// Subject implements [Command].
func (c RevokeNode) Subject() StreamID { return NodeStream(c.ID) }

// Account implements [Command].
func (RevokeNode) Account() int64 { return 0 }

// Reads implements [Command].
func (c RevokeNode) Reads() []StreamID { return []StreamID{NodeStream(c.ID)} }

// Decide implements [Command].
func (c RevokeNode) Decide(s States) (Decision, error) {
	var d Decision
	if c.ID <= 0 {
		return d, refuseAt(CodeInvalid, "The node cannot be revoked as asked.", "node_id")
	}
	n, err := s.node(c.ID)
	if err != nil {
		return d, err
	}
	if !n.Revoked {
		d.add(NodeStream(c.ID), NodeRevoked{NodeID: string(NodeStream(c.ID))})
	}
	return d, nil
}

// node gives the state of a node, which may not be in the log yet.
func (s States) node(id int64) (*Node, error) {
	if err := s.need(NodeStream(id)); err != nil {
		return nil, err
	}
	return state[*Node](s, NodeStream(id)), nil
}
