// Package directory knows where every client is now: which node holds its
// session, since when, and which of two sessions is the newer.
//
// Presence is not history: it lives in leases that expire and leaves no events.
// directory/memory serves one process, directory/redis a cluster;
// directory/directorytest is the one suite.
package directory

import (
	"context"
	"time"
)

// Epoch orders the sessions of one client. It only rises; the session with the
// higher epoch fences the others.
type Epoch int64

// Session is one agent's session as others see it.
type Session struct {
	ClientID  int64     `json:"client_id"`
	Node      string    `json:"node"`     // node id, for example "node-001"
	Session   string    `json:"session"`  // id of the session on that node
	Instance  string    `json:"instance"` // drawn by the agent process at its start
	Epoch     Epoch     `json:"epoch"`    // given by Register
	Version   string    `json:"version"`  // of the agent
	Address   string    `json:"address"`  // the agent's address as the node sees it
	Since     time.Time `json:"since"`
	ConfigAck int64     `json:"config_ack"` // configuration version the agent has applied
}

// Presence is what is known of a client: its live session, if any, and when it
// was last seen.
type Presence struct {
	Online   bool
	Session  Session
	LastSeen time.Time // zero = never
}

// Directory is the contract of both implementations.
type Directory interface {
	// Register records the session and gives it an epoch above all earlier ones of
	// the client. Sessions of other instances of the client are replaced, and
	// their nodes learn of it through Watch.
	Register(ctx context.Context, s Session) (Epoch, error)
	// Renew prolongs the leases of sessions this node holds, and registers again,
	// with the same epoch, what a flush took away. It returns those that were
	// fenced by a newer session. At most 1,000 sessions a call.
	Renew(ctx context.Context, sessions []Session) (fenced []Session, err error)
	// Remove ends a session if its epoch is still the client's current one.
	Remove(ctx context.Context, s Session) error
	// Lookup gives the presence of each client, in order.
	Lookup(ctx context.Context, clientIDs ...int64) ([]Presence, error)
	// Watch calls fn for each session of this node that was fenced, until ctx ends.
	Watch(ctx context.Context, node string, fn func(Session)) error
	// LeaseID leases the lowest free node id (node-001 to node-1000) under the
	// owner's name and prolongs it when called again.
	LeaseID(ctx context.Context, owner string) (string, error)
}

// TTL is how long a lease lasts without renewal; renew at a third of it.
const TTL = 15 * time.Second
