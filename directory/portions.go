package directory

import (
	"context"
	"errors"
	"time"
)

// Portion is a node's request for a part of the connections that a mapping may have in
// the cluster. Held and Want are absolute numbers, so asking twice is the same as
// asking once. A node whose portion was lost asks for what it holds.
type Portion struct {
	Mapping  int64
	Node     string
	Run      string // the run whose lease holds the portion; the portion ends with that lease
	Sequence int64  // rises from one call of the run to the next; a call that arrives late changes nothing
	Held     int64  // what the node has; nobody takes it away from the node
	Want     int64  // what the node would like to have
	Limit    int64  // for the portions of all nodes together
}

// Granted is the answer to a Portion.
type Granted struct {
	// Held is what the node has from now on. It is between the Held and the Want of the
	// request, and never more than the portions of the other nodes leave. Before
	// Settled it is not more than the Held of the request.
	Held int64
	// Settled says that portions from before a loss of data are known again, because
	// their holders have had the time to report them.
	Settled bool
	// Over says that all nodes together hold more than the limit. This happens when the
	// limit is lowered, or when a node exceeded its portion while it could not ask. The
	// node must then not reuse the places of streams that end.
	Over bool
	// Since is the value that [Portions].Since gives.
	Since string
}

// Errors of portions. Test for them with errors.Is.
var (
	// ErrNoLease is returned by Reserve to a node whose lease has expired or was lost.
	// The node must call Beat first.
	ErrNoLease = errors.New("directory: the node has no lease")
	// ErrLate is returned by Reserve to a call that arrives after a later call.
	ErrLate = errors.New("directory: a later call arrived before this one")
)

// Portions divide limits among nodes. Both implementations of [Directory] implement it
// too.
//
// The portions of the nodes with a live lease together are never more than the limit,
// unless a node has exceeded its portion without asking. A portion ends with the lease
// of the run that asked for it.
type Portions interface {
	// Reserve sets a node's portion. When the node gets less than it wants, the other
	// nodes with a portion get a Wanted notice. They may miss the notice.
	Reserve(ctx context.Context, s Portion) (Granted, error)
	// Since names the time from which on the directory knows all portions. When this
	// value changes, every node must report what it holds again within Settle.
	Since(ctx context.Context) (string, error)
}

const (
	// Settle is how long no portion grows after a directory has lost its data, or may
	// have lost it. Within this time the nodes that hold portions notice the loss.
	Settle = 3 * time.Second
	// PortionKept is how long a mapping's portions are kept after the last request.
	PortionKept = time.Hour
)
