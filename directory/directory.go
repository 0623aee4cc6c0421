// Package directory knows where every client is now: which node holds its
// session, since when, and which of two sessions is the newer.
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

// ErrNoFreeID is returned by LeaseID when all thousand node ids are leased.
var ErrNoFreeID = errors.New("directory: every node id is leased")

// Directory is the contract of both implementations.
type Directory interface {
	// Register records the session and gives it an epoch above all earlier ones of
	// the client, also those a flush has taken away. The client's session before
	// it, if any, is replaced, and its node learns of that through Watch.
	Register(ctx context.Context, s Session) (Epoch, error)
	// Renew prolongs the leases of sessions this node holds, and registers again,
	// with the same epoch, what a flush took away. It returns those that were
	// fenced by a newer session. A session that was removed stays removed. At most
	// 1,000 sessions a call.
	Renew(ctx context.Context, sessions []Session) (fenced []Session, err error)
	// Remove ends a session if its epoch is still the client's current one.
	Remove(ctx context.Context, s Session) error
	// Lookup gives the presence of each client, in order.
	Lookup(ctx context.Context, clientIDs ...int64) ([]Presence, error)
	// Watch calls fn for each session of this node that was fenced, until ctx
	// ends, one after the other. It is quick and may miss some, while Redis is
	// away for example: what Renew returns is the guarantee.
	Watch(ctx context.Context, node string, fn func(Session)) error
	// LeaseID leases the lowest free node id (node-001 to node-1000) under the
	// owner's name and prolongs it when called again.
	LeaseID(ctx context.Context, owner string) (string, error)
}

const (
	// TTL is how long a lease lasts without renewal; renew at a third of it.
	TTL = 15 * time.Second
	// Memory is how long a client's epoch and the time it was last seen are kept
	// after its last session.
	Memory = 30 * 24 * time.Hour
	// MaxNodes is how many node ids there are.
	MaxNodes = 1000
)

// NodeID names the nth node, from 1.
func NodeID(n int) string { return fmt.Sprintf("node-%03d", n) }
