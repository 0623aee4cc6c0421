package directory

import (
	"context"
	"errors"
	"time"
)

// Portion is a node's part of how many connections a mapping may have in the cluster,
// as the node asks for it. Held and Want are absolute, so that asking twice is asking
// once, and a node whose portion was lost asks for what it holds.
type Portion struct {
	Mapping  int64
	Node     string
	Run      string // whose lease holds the portion: it ends with that
	Sequence int64  // rises from one call of the run to the next: one that comes late changes nothing
	Held     int64  // what the node has, which nobody takes away from it
	Want     int64  // what it would have
	Limit    int64  // of the portions of all nodes together
}

// Granted answers a Portion.
type Granted struct {
	// Held is what the node has from now on, from the Held it asked with to its Want:
	// never more than the other nodes' portions leave, and none more before Settled.
	Held int64
	// Settled tells that what others held before the directory has lost it would be
	// known again by now.
	Settled bool
	// Over tells that all together hold more than the limit, which was lowered, or was
	// exceeded while somebody could not ask: what ends is not to be used again.
	Over bool
	// Since is what [Portions].Since gives.
	Since string
}

// Errors of portions; test with errors.Is.
var (
	// ErrNoLease is returned by Reserve to a node whose lease has run out or was lost,
	// which is to beat first.
	ErrNoLease = errors.New("directory: the node has no lease")
	// ErrLate is returned by Reserve to a call that a later one has overtaken.
	ErrLate = errors.New("directory: a later call was here before")
)

// Portions divide limits among nodes. Both implementations of [Directory] are one too.
//
// The portions of the nodes with a live lease are together never more than the limit,
// as long as no node has begun to hold some without asking. A portion ends with the
// lease of the run that asked for it.
type Portions interface {
	// Reserve sets a node's portion. Other nodes with a portion, when they keep the node
	// from what it wants, get a Wanted notice, which they may miss.
	Reserve(ctx context.Context, s Portion) (Granted, error)
	// Since names the time from which on the directory knows all portions. When it has
	// changed, every node is to ask for what it holds once more within Settle.
	Since(ctx context.Context) (string, error)
}

const (
	// Settle is how long nobody gets more than it has after a directory has lost what
	// it knew, or may have: the nodes that hold something find out within that time.
	Settle = 3 * time.Second
	// PortionKept is how long a mapping's portions are kept after somebody has asked.
	PortionKept = time.Hour
)
