// Package eventstore keeps the log: every record ever written, in one order.
//
// Its duty is the contract of a [Store], and what is the same above every
// store: [Executor] reads, decides and appends, and [Relay] carries what was
// appended to the configuration feed. Stores are in eventstore/postgres and
// eventstore/sqlite; eventstore/eventstoretest is the one suite both pass.
//
// What a store promises:
//
//   - Positions are dense (1, 2, 3 ...) in commit order. A reader that saw
//     position N has seen all before N, and the prefix never changes.
//   - An append is one unit: events of several streams, claims, releases and
//     the idempotency key are all written or none.
//   - What Append acknowledged survives kill -9 of the process and of the
//     database server.
package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// Expected versions with a meaning of their own; other values are exact.
const (
	Any       domain.Version = -1 // whatever the stream's version is
	NotExist  domain.Version = 0  // the stream must have no records
	MustExist domain.Version = -2 // the stream must have records
)

// StreamAppend is one event stream of an append. Without events it is a guard:
// the append is refused if the stream moved, and writes nothing to it. A closed
// stream cannot move, so guarding one is allowed.
type StreamAppend struct {
	Stream   domain.StreamID
	Expected domain.Version
	Close    bool // the stream takes no records after the events of this append
}

// NewEvent is an event to append, encoded. Events get positions in the order in
// which they stand in [Append.Events], whatever their event streams.
type NewEvent struct {
	Stream int   // index into Append.Streams
	Owner  int64 // the account the record belongs to, 0 = the append's
	Name   string
	Schema int
	Data   []byte // JSON; kept byte for byte
}

// Append is what is written as one unit.
type Append struct {
	Account  int64 // owner of the records that name no other, 0 = nobody
	Meta     domain.Metadata
	Streams  []StreamAppend
	Events   []NewEvent     // at least one
	Releases []domain.Claim // given back before Claims are taken; one not held by its Owner stays as it is
	Claims   []domain.Claim // taking what one's own Owner holds already is no conflict
	// Key makes the append idempotent within KeyScope ("" = it is not): a second
	// one with the same Hash writes nothing and gets the first one's positions.
	Key      string
	KeyScope string
	Hash     [32]byte
	// Subject is kept with the key and given back with a duplicate, whose own
	// subject may be an id that was drawn for it and never used.
	Subject domain.StreamID
}

// Result is what became of one append: Err, or the positions it got. The checks
// are made in the order key, expected versions, closed streams, claims, and the
// first that fails is the answer.
type Result struct {
	First, Last domain.Position
	// Records are those written now, as a reader gets them.
	Records []domain.Record
	// Duplicate says that the key was used before and nothing was written now;
	// First, Last and Subject are those of the append that used it.
	Duplicate bool
	Subject   domain.StreamID
	Err       error // ErrConflict, ErrTaken, ErrKeyReused, ErrClosed, ErrMalformed (wrapped), or nil
}

// KeyUse is what the log remembers of an idempotency key.
type KeyUse struct {
	Hash        [32]byte
	First, Last domain.Position
	Subject     domain.StreamID
}

// Refusals of an append. They say that nothing of it was written.
var (
	ErrConflict  = errors.New("eventstore: wrong expected version")
	ErrTaken     = errors.New("eventstore: claim is taken")
	ErrKeyReused = errors.New("eventstore: idempotency key was used with another request")
	ErrClosed    = errors.New("eventstore: stream is closed")
	ErrMalformed = errors.New("eventstore: malformed append")
	// ErrForked is returned to a follower whose checkpoint is not in this log:
	// the log was restored to an older state or is another log.
	ErrForked = errors.New("eventstore: the log does not contain the checkpoint")
	// ErrSchema is returned on opening a database whose schema is older or newer
	// than this program knows.
	ErrSchema = errors.New("eventstore: database schema version does not fit")
	// ErrUnavailable wraps failures to reach the database. After it an append
	// may or may not have been written; a retry with the same Key finds out.
	ErrUnavailable = errors.New("eventstore: database is unavailable")
)

// TakenError tells which claim is held by somebody else. It is an [ErrTaken].
type TakenError struct{ Claim domain.Claim }

// Error implements error.
func (e *TakenError) Error() string {
	return fmt.Sprintf("%v: %s %q", ErrTaken, e.Claim.Scope, e.Claim.Value)
}

// Is makes errors.Is(err, ErrTaken) true.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// Checkpoint is how far a follower has come. EventID is the id of the record at
// Position and tells a forked history apart; it is zero at position 0.
type Checkpoint struct {
	Position domain.Position
	EventID  domain.EventID
}

// Store is the contract, as the packages above it use it and the suite tests
// it. All methods may be called concurrently.
type Store interface {
	Searcher
	// AppendBatch appends each of batch, in order, each as a unit of its own
	// with a result of its own; those that succeed are committed together. The
	// error is for the batch as a whole (ErrUnavailable, context) and means that
	// no result is known. An append sees the ones before it in the batch.
	AppendBatch(ctx context.Context, batch []Append) ([]Result, error)
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order and
	// without holes; a hole in the log itself is an error.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	// Head gives the checkpoint at the end of the log.
	Head(ctx context.Context) (Checkpoint, error)
	// Verify returns ErrForked if the record at c.Position is not c.EventID.
	Verify(ctx context.Context, c Checkpoint) error
	// KeyUse gives what used an idempotency key; ok is false when nothing did.
	KeyUse(ctx context.Context, scope, key string) (use KeyUse, ok bool, err error)
	// Wait returns once the log reaches beyond after, at once for appends of this
	// process and within 250 ms for those of others, or with the context's error
	// or ErrUnavailable.
	Wait(ctx context.Context, after domain.Position) error
	// NextID draws the next id of a sequence.
	NextID(ctx context.Context, s domain.Sequence) (int64, error)
	// Close ends the store after running calls have returned.
	Close() error
}
