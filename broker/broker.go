// Package broker carries the configuration feed: the records of the log, in
// order, to every forwarder.
//
// Its duty is delivery without silent loss. Each entry names its position and
// the position before it, so a follower that was cut off, overrun or reset finds
// out (ErrGap) and starts again from a snapshot; it never skips a record and
// never gets one twice. Its limit: it is not the truth. Anything here may be
// lost and is published again from the log.
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
	// Record is nil for a control entry, which only tells how far the feed is
	// (Position == Prev) and that the publisher lives.
	Record *domain.Record
}

// ErrGap is returned by Next when entries after the follower's position are no
// longer, or not continuously, on the feed. Take a snapshot and follow from its
// position.
var ErrGap = errors.New("broker: gap in the configuration feed")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("broker: closed")

// Publisher puts records on the feed. Several publishers may work at once: an
// entry that is already there is left as it is.
type Publisher interface {
	// Last gives the position of the newest entry on the feed; ok is false when
	// the feed is empty (new, flushed).
	Last(ctx context.Context) (position domain.Position, ok bool, err error)
	// Publish appends records, which must follow prev, in order. If the feed's
	// newest entry is beyond prev, records up to it are skipped; if it is before
	// prev, the feed shows a gap to followers that stopped there, and that is
	// right: the records between are gone from the feed.
	Publish(ctx context.Context, prev domain.Position, records []domain.Record) error
	// Heartbeat publishes a control entry for the given position. It does nothing
	// when the feed is beyond it.
	Heartbeat(ctx context.Context, position domain.Position) error
	// Reset takes everything off the feed. It is for a feed that is not of this
	// log: one whose Last is beyond the log's end.
	Reset(ctx context.Context) error
}

// Follower reads the feed.
type Follower interface {
	// Follow starts behind a position. Connection failures are retried inside
	// with jittered backoff; Next returns only entries, ErrGap, ErrClosed or the
	// context's error.
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
