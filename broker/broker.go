// Package broker carries the configuration feed: the records of the log, in order, to
// every forwarder.
//
// Its duty is delivery without silent loss. Each entry names its position and the
// position before it. So a follower that was cut off, overrun or reset notices it
// (ErrGap) and starts again from a snapshot. It never skips a record and never gets one
// twice. A follower of a log that was rolled back, by a restore for example, notices it
// too (ErrForked) and drops what it knew. Its limit: the feed is not the truth. Every
// entry may be lost and is published again from the log.
//
// broker/memory is the ring of the embedded form. broker/redis is the Redis Streams of
// a cluster (through watermill). Both pass the suite in broker/brokertest.
package broker

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
)

// Entry is one record on the feed, or a control entry without a record.
type Entry struct {
	Position domain.Position
	// Prev is the position of the entry before this one on the feed. A follower that
	// finished another position than Prev has missed something.
	Prev domain.Position
	// PrevID is the id of the record at Prev, zero when it is not known. A follower
	// that had another record there has followed another log.
	PrevID domain.EventID
	// Record is nil for a control entry, which only says how far the feed goes
	// (Position == Prev) and that the publisher lives.
	Record *domain.Record
}

// ErrGap is returned by Next when the entries after the follower's position are not on
// the feed any more, or not without holes. Take a snapshot and follow from its
// position.
var ErrGap = errors.New("broker: gap in the configuration feed")

// ErrForked is returned by Next when the feed does not belong to the log that was
// followed so far: that log was rolled back, and delivered records are in no log any
// more. Drop everything, take a snapshot whatever its position, and follow from there.
var ErrForked = errors.New("broker: the configuration feed belongs to another log")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("broker: closed")

// Publisher puts records on the feed. Several publishers may work at the same time: an
// entry that is already there is left as it is.
type Publisher interface {
	// Last gives the place of the newest entry on the feed and the feed's epoch; ok is
	// false when the feed is empty (new, flushed). An epoch begins with a Reset, which
	// names it: all entries of an epoch are of one log. It is "" when no epoch was
	// named, or after a flush.
	Last(ctx context.Context) (end domain.Place, epoch string, ok bool, err error)
	// Publish appends records, which must follow prev, in order. If the feed's newest
	// entry is beyond prev, records up to it are skipped. If it is before prev,
	// followers that stopped there see a gap. This is right: the records between are
	// not on the feed any more.
	Publish(ctx context.Context, prev domain.Place, records []domain.Record) error
	// Heartbeat publishes a control entry for the given place. It does nothing when the
	// feed is beyond that place.
	Heartbeat(ctx context.Context, at domain.Place) error
	// Name gives an epoch to a feed that has none. The entries on the feed stay.
	Name(ctx context.Context, epoch string) error
	// Reset removes all entries from the feed and begins an epoch. Followers of another
	// epoch get ErrForked. It is for a feed that belongs to another log.
	Reset(ctx context.Context, epoch string) error
}

// Follower reads the feed.
type Follower interface {
	// Follow starts after a position. Failed connections are retried inside with
	// jittered backoff; Next returns only entries, ErrGap, ErrForked, ErrClosed or the
	// context's error.
	Follow(ctx context.Context, after domain.Position) (Subscription, error)
}

// Subscription is one follower's place on the feed. Only one goroutine may use Next.
type Subscription interface {
	// Next gives the next entry, with a Position above that of the last entry. Control
	// entries are delivered too. A control entry beyond the delivered records is
	// ErrGap.
	Next(ctx context.Context) (Entry, error)
	// Close ends this subscription only. A Next that waits in another goroutine ends
	// with ErrClosed.
	Close() error
}
