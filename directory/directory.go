// Package directory knows where every client is now: which nodes hold its sessions,
// since when, and which of two agents is the newer one. It also divides limits that
// hold for the whole cluster among the nodes: see [Portions].
//
// Presence is not history. It is kept in leases that expire, and it writes no events.
// directory/memory serves one process, directory/redis serves a cluster. Both pass the
// suite in directory/directorytest.
package directory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Epoch orders the sessions of one client. It only rises.
type Epoch int64

// Session is one agent's session as other nodes see it.
type Session struct {
	ClientID  int64     `json:"client_id"`
	Node      string    `json:"node"`                // node id, for example "node-001"
	Run       string    `json:"run"`                 // of the node: drawn by the node's process when it starts, without spaces
	Session   string    `json:"session"`             // id of the session on that node
	Instance  string    `json:"instance"`            // drawn by the agent's process when it starts
	Epoch     Epoch     `json:"epoch"`               // given by Register
	Version   string    `json:"version"`             // of the agent
	Protocols string    `json:"protocols,omitempty"` // the protocols that the agent carries, separated by commas; "" = not known
	Address   string    `json:"address"`             // the agent's address as the node sees it
	Transport string    `json:"transport,omitempty"` // the scheme of the carrier, for example "quic"; "" = not known
	Since     time.Time `json:"since"`
	ConfigAck int64     `json:"config_ack"` // configuration version the agent has applied
}

// Presence is what the directory knows of a client: its live sessions and when it was
// last seen.
type Presence struct {
	Online   bool
	Sessions []Session // live sessions, the newest first: at most one at each node, all of one instance
	LastSeen time.Time // zero = never
}

// NoticeKind is the kind of a [Notice].
type NoticeKind string

// The kinds of notices.
const (
	Fenced       NoticeKind = "fenced"       // a newer session has replaced the session
	Disconnected NoticeKind = "disconnected" // somebody disconnected the session; its agent may connect again
	Drain        NoticeKind = "drain"        // somebody asked the node to drain
	Wanted       NoticeKind = "wanted"       // another node needs unused connections of a mapping that this node holds
)

// Notice tells a node what others did with one of its sessions, or what others want
// from the node.
type Notice struct {
	Kind    NoticeKind
	Session Session // of Fenced and Disconnected
	Mapping int64   // of Wanted; only Watch brings such a notice
}

// Beat is the answer to a node that prolongs its lease.
type Beat struct {
	// Known says that the lease was live. A lease is not live after a flush or after a
	// long silence. Then the node's sessions may be lost too, and the node must renew
	// them.
	Known   bool
	Notices []Notice // those since the last beat, including those that Watch has brought
}

// Errors of a directory. Test for them with errors.Is.
var (
	// ErrNoFreeID is returned by LeaseID when all thousand node ids are leased.
	ErrNoFreeID = errors.New("directory: every node id is leased")
	// ErrSuperseded is returned by Register to an instance that a newer instance has
	// replaced.
	ErrSuperseded = errors.New("directory: a newer instance of the agent serves the client")
	// ErrNoNode is returned by RequestDrain when there is no such node.
	ErrNoNode = errors.New("directory: there is no such node")
	// ErrNodeTaken is returned by Beat when another process has the node id.
	ErrNodeTaken = errors.New("directory: another process has this node id now")
)

// Directory is the contract of both implementations.
//
// One instance of a client's agent serves the client at a time. It may have one session
// at each of several nodes. The instance that registers last fences the other
// instances. A fenced instance cannot register again.
//
// A session is live while the lease of its node is live, in the run of the node that
// registered the session. So one heartbeat is one write for the node, however many
// sessions the node has. When a node dies, all of its sessions end at the same time. A
// node that starts again shows no sessions of its earlier run.
type Directory interface {
	// Beat prolongs the lease of the node for TTL, and with it all sessions of that
	// run. A newer run replaces an older one; the older run then gets ErrNodeTaken.
	Beat(ctx context.Context, node, run string) (Beat, error)
	// Register records the session and gives it an epoch above all earlier epochs of
	// the client, also above those lost in a flush. The session replaces the client's
	// session at the same node. Sessions of other instances are fenced, and their nodes
	// are told. ErrSuperseded means that the session's own instance was fenced before.
	Register(ctx context.Context, s Session) (Epoch, error)
	// Renew registers sessions of this node again with the same epoch. A node calls it
	// after a flush, when something about the sessions has changed, and every Refresh.
	// The answer names the sessions that others have ended. A removed session stays
	// removed. A call takes at most MaxRenew sessions.
	Renew(ctx context.Context, sessions []Session) (ended []Notice, err error)
	// Remove ends a session if its epoch is still that of the client's session at this
	// node.
	Remove(ctx context.Context, s Session) error
	// Disconnect ends the client's sessions at all nodes and tells the nodes. It gives
	// the nodes that held live sessions.
	Disconnect(ctx context.Context, clientID int64) (nodes []string, err error)
	// Lookup gives the presence of each client, in order.
	Lookup(ctx context.Context, clientIDs ...int64) ([]Presence, error)
	// Watch calls fn with each notice for the node, one after the other, until ctx
	// ends. It is fast and may miss notices, for example while Redis is away. Only Beat
	// gives all of them.
	Watch(ctx context.Context, node string, fn func(Notice)) error
	// RequestDrain tells a node to drain. A request to one run of a node does not reach
	// the next run. ErrNoNode means that there is no such node.
	RequestDrain(ctx context.Context, node string) error
	// LeaseID leases a node id (node-001 to node-1000) to the owner. The owner prolongs
	// the lease with the same call. The id is the lowest one that had no owner for
	// IDKept, so that a node keeps its id while it cannot reach the directory. If there
	// is none, the id is the lowest one whose lease has ended.
	LeaseID(ctx context.Context, owner string) (string, error)
	// Expel ends a node that is no longer trusted: its record and its sessions are gone
	// at once, its run gets ErrNodeTaken, and its id is leased to nobody until a flush.
	Expel(ctx context.Context, node string) error
}

const (
	// TTL is how long a lease lasts without renewal. Renew it after a third of TTL.
	TTL = 15 * time.Second
	// Refresh is how often a session is registered again even if nothing has changed.
	// Rarely is the same for a very large cluster; see [RefreshEvery].
	Refresh = 10 * time.Minute
	Rarely  = 3 * time.Hour
	// RefreshRate is the highest number of sessions in a cluster that are registered
	// again in a second. It is a tenth of what Redis can do.
	RefreshRate = 3000
	// Kept is how long a session is remembered that is not registered again. It says
	// nothing about whether the session is live: the lease of its node decides that,
	// long before.
	Kept = 2 * Rarely
	// Memory is how long a client's epoch and last-seen time are kept after its last
	// session.
	Memory = 30 * 24 * time.Hour
	// IDKept is how long a node id is kept for its last owner after the lease has ended.
	IDKept = 24 * time.Hour
	// MaxNodes is the number of node ids.
	MaxNodes = 1000
	// MaxRenew bounds the sessions in one call of Renew.
	MaxRenew = 1000
	// MaxPast is how many fenced instances of a client are remembered.
	MaxPast = 8
	// MaxNotices is how many notices can wait for a node's next beat. The oldest are
	// dropped first.
	MaxNotices = 10_000
)

// RefreshEvery gives how often each session is registered again when all nodes together
// have so many sessions.
func RefreshEvery(sessions int) time.Duration {
	return max(Refresh, min(time.Duration(sessions/RefreshRate)*time.Second, Rarely))
}

// NodeID gives the id of the nth node, counted from 1.
func NodeID(n int) string { return fmt.Sprintf("node-%03d", n) }
