// Package directory knows where every client is now: which nodes hold its
// sessions, since when, and which of two agents is the newer. It also divides among
// nodes what a mapping may have once in a cluster: see [Portions].
//
// Presence is not history: it lives in leases that expire and leaves no events.
// directory/memory serves one process, directory/redis a cluster;
// directory/directorytest is the one suite.
package directory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Epoch orders the sessions of one client. It only rises.
type Epoch int64

// Session is one agent's session as others see it.
type Session struct {
	ClientID  int64     `json:"client_id"`
	Node      string    `json:"node"`                // node id, for example "node-001"
	Run       string    `json:"run"`                 // of the node: drawn by its process at its start, without spaces
	Session   string    `json:"session"`             // id of the session on that node
	Instance  string    `json:"instance"`            // drawn by the agent process at its start
	Epoch     Epoch     `json:"epoch"`               // given by Register
	Version   string    `json:"version"`             // of the agent
	Protocols string    `json:"protocols,omitempty"` // what the agent carries, with commas between; "" = not known
	Address   string    `json:"address"`             // the agent's address as the node sees it
	Since     time.Time `json:"since"`
	ConfigAck int64     `json:"config_ack"` // configuration version the agent has applied
}

// Presence is what is known of a client: its live sessions and when it was last
// seen.
type Presence struct {
	Online   bool
	Sessions []Session // live ones, the newest first: at most one a node, all of one instance
	LastSeen time.Time // zero = never
}

// NoticeKind is what a node is told.
type NoticeKind string

// The notices.
const (
	Fenced       NoticeKind = "fenced"       // a newer session has taken the session's place
	Disconnected NoticeKind = "disconnected" // somebody asked for the session's end; its agent may come back
	Drain        NoticeKind = "drain"        // somebody asks the node to drain
	Wanted       NoticeKind = "wanted"       // another node could use what this one has left of a mapping's connections
)

// Notice tells a node what others have done about one of its sessions, or about
// itself.
type Notice struct {
	Kind    NoticeKind
	Session Session // of Fenced and Disconnected
	Mapping int64   // of Wanted, which only Watch brings
}

// Beat is what a node hears when it prolongs its lease.
type Beat struct {
	// Known tells that the lease was live. When it was not, after a flush or a long
	// silence, what the node has registered may be gone too, and is to be renewed.
	Known   bool
	Notices []Notice // since the last beat, those that Watch has brought among them
}

// Errors of a directory; test with errors.Is.
var (
	// ErrNoFreeID is returned by LeaseID when all thousand node ids are leased.
	ErrNoFreeID = errors.New("directory: every node id is leased")
	// ErrSuperseded is returned by Register to an instance in whose place a newer
	// one has come.
	ErrSuperseded = errors.New("directory: a newer instance has taken the client over")
	// ErrNoNode is returned by RequestDrain when the node is not there.
	ErrNoNode = errors.New("directory: there is no such node")
	// ErrNodeTaken is returned by Beat to a process whose node id another one has.
	ErrNodeTaken = errors.New("directory: another process is this node now")
)

// Directory is the contract of both implementations.
//
// A client is served by one instance of its agent at a time, which may have a
// session at each of several nodes. The instance that registers last fences the
// others, and one that was fenced does not come back.
//
// A session is live as long as its node's lease is, in the run of the node that
// registered it. So a heartbeat costs one write a node however many sessions it
// has, a node that dies takes all of its sessions with it at once, and one that
// starts anew shows none that it does not have.
type Directory interface {
	// Beat prolongs the lease of the node, and with it of all sessions of that run,
	// for TTL. A newer run takes over from an older one, which then gets
	// ErrNodeTaken.
	Beat(ctx context.Context, node, run string) (Beat, error)
	// Register records the session and gives it an epoch above all earlier ones of
	// the client, also those a flush has taken away. It replaces the client's
	// session at the same node. Sessions of other instances are fenced, and their
	// nodes are told. ErrSuperseded means that the session's instance was fenced
	// itself.
	Register(ctx context.Context, s Session) (Epoch, error)
	// Renew registers sessions of this node again, with the same epoch: after a
	// flush, when something about them has changed, and every Refresh. It gives
	// those that were ended by others. A session that was removed stays removed. At
	// most MaxRenew sessions a call.
	Renew(ctx context.Context, sessions []Session) (ended []Notice, err error)
	// Remove ends a session if its epoch is still that of the client's session at
	// this node.
	Remove(ctx context.Context, s Session) error
	// Disconnect ends the client's sessions wherever they are, and gives the nodes
	// that held live ones, which are told.
	Disconnect(ctx context.Context, clientID int64) (nodes []string, err error)
	// Lookup gives the presence of each client, in order.
	Lookup(ctx context.Context, clientIDs ...int64) ([]Presence, error)
	// Watch calls fn with what the node is told, until ctx ends, one after the
	// other. It is quick and may miss some, while Redis is away for example: what
	// Beat gives is the guarantee.
	Watch(ctx context.Context, node string, fn func(Notice)) error
	// RequestDrain tells a node to drain. A node that starts anew does not hear what
	// was asked of the last. ErrNoNode means that there is no such node.
	RequestDrain(ctx context.Context, node string) error
	// LeaseID leases the lowest free node id (node-001 to node-1000) under the
	// owner's name and prolongs it when called again.
	LeaseID(ctx context.Context, owner string) (string, error)
}

const (
	// TTL is how long a lease lasts without renewal; renew at a third of it.
	TTL = 15 * time.Second
	// Refresh is how often a session is registered again whatever happens, and Rarely
	// the same in a cluster of very many; see [RefreshEvery].
	Refresh = 10 * time.Minute
	Rarely  = 3 * time.Hour
	// RefreshRate is how many sessions of a cluster are registered again a second, at
	// most: a tenth of what Redis can do.
	RefreshRate = 3000
	// Kept is how long a session that is not registered again is remembered. Whether
	// it is live its node's lease tells, long before.
	Kept = 2 * Rarely
	// Memory is how long a client's epoch and the time it was last seen are kept
	// after its last session.
	Memory = 30 * 24 * time.Hour
	// MaxNodes is how many node ids there are.
	MaxNodes = 1000
	// MaxRenew bounds the sessions in one call of Renew.
	MaxRenew = 1000
	// MaxPast is how many fenced instances of a client are remembered.
	MaxPast = 8
	// MaxNotices is how many notices wait for a node's next beat; the oldest go first.
	MaxNotices = 10_000
)

// RefreshEvery is how often each of so many sessions is registered again, those of
// all nodes together.
func RefreshEvery(sessions int) time.Duration {
	return max(Refresh, min(time.Duration(sessions/RefreshRate)*time.Second, Rarely))
}

// NodeID names the nth node, from 1.
func NodeID(n int) string { return fmt.Sprintf("node-%03d", n) }
