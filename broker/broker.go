// Package broker carries the configuration feed: the records of the log, in
// order, to every forwarder.
//
// Its duty is delivery without silent loss. Each entry names its position and
// the position before it, so a follower that was cut off, overrun or reset finds
// out (ErrGap) and starts again from a snapshot; it never skips a record and
// never gets one twice. Who followed a log that was taken back, by a restore for
// example, finds out too (ErrForked) and forgets what it knew. Its limit: it is not
// the truth. Anything here may be lost and is published again from the log.
//
// broker/memory is the ring of the embedded form, broker/redis the Redis
// Streams of a cluster (through watermill); broker/brokertest is the one suite.
package broker

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
)

// Entry is one record on the feed, or a control entry without a record.
type Entry struct {
	Position domain.Position
	// Prev is the position of the entry before this one on the feed. A follower
	// that finished another position than Prev has missed something.
	Prev domain.Position
	// PrevID is the id of the record at Prev, zero when it is not known. A follower
	// that had another record there has followed another log.
	PrevID domain.EventID
	// Record is nil for a control entry, which only tells how far the feed is
	// (Position == Prev) and that the publisher lives.
	Record *domain.Record
}

// ErrGap is returned by Next when entries after the follower's position are no
// longer, or not continuously, on the feed. Take a snapshot and follow from its
// position.
var ErrGap = errors.New("broker: gap in the configuration feed")

// ErrForked is returned by Next when the feed is of another log than the one
// followed so far: that was taken back, and records that were delivered are in no
// log any more. Forget everything, take a snapshot whatever its position, and follow
// from there.
var ErrForked = errors.New("broker: the configuration feed is of another log")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("broker: closed")

// Publisher puts records on the feed. Several publishers may work at once: an
// entry that is already there is left as it is.
type Publisher interface {
	// Last gives the place of the newest entry on the feed and the feed's epoch; ok
	// is false when the feed is empty (new, flushed). An epoch is what a Reset has
	// named: all entries since are of one log. It is "" when there is none, or it
	// was flushed.
	Last(ctx context.Context) (end domain.Place, epoch string, ok bool, err error)
	// Publish appends records, which must follow prev, in order. If the feed's
	// newest entry is beyond prev, records up to it are skipped; if it is before
	// prev, the feed shows a gap to followers that stopped there, and that is
	// right: the records between are gone from the feed.
	Publish(ctx context.Context, prev domain.Place, records []domain.Record) error
	// Heartbeat publishes a control entry for the given place. It does nothing
	// when the feed is beyond it.
	Heartbeat(ctx context.Context, at domain.Place) error
	// Name says which epoch the feed is of, where it has none. What is on it stays.
	Name(ctx context.Context, epoch string) error
	// Reset takes everything off the feed and begins an epoch. Whoever has heard of
	// another one gets ErrForked. It is for a feed that is not of this log.
	Reset(ctx context.Context, epoch string) error
}

// Follower reads the feed.
type Follower interface {
	// Follow starts behind a position. Connection failures are retried inside
	// with jittered backoff; Next returns only entries, ErrGap,
	// ErrForked, ErrClosed or the context's error.
	Follow(ctx context.Context, after domain.Position) (Subscription, error)
}

// Subscription is one follower's place on the feed. Next is used by one goroutine.
type Subscription interface {
	// Next gives the next entry, with Position above the last one's. Control
	// entries are delivered too; a control entry beyond what was delivered is ErrGap.
	Next(ctx context.Context) (Entry, error)
	// Close ends the subscription and leaves other subscriptions alone.
	// A Next that waits in another goroutine ends with ErrClosed.
	Close() error
}
