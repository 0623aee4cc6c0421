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
// the append is refused if the stream moved, and writes nothing to it.
type StreamAppend struct {
	Stream   domain.StreamID
	Expected domain.Version
	Close    bool // the stream takes no records after these
}

// NewEvent is an event to append, encoded. Events get positions in the order in
// which they stand in [Append.Events], whatever their streams.
type NewEvent struct {
	Stream int // index into Append.Streams
	Name   string
	Schema int
	Data   []byte // JSON; kept byte for byte
}

// Append is what is written as one unit.
type Append struct {
	Account  int64 // owner of the records, 0 = nobody
	Meta     domain.Metadata
	Streams  []StreamAppend
	Events   []NewEvent // at least one
	Releases []domain.Claim
	Claims   []domain.Claim
	Key      string // idempotency key, "" = none
	KeyScope string // keys are unique within it
	Hash     [32]byte
}

// Result is what became of one append: Err, or the positions it got. When
// Duplicate is set, First and Last are those of the append that used the key
// first and nothing was written now.
type Result struct {
	First, Last domain.Position
	Duplicate   bool
	Err         error // ErrConflict, ErrTaken, ErrKeyReused, ErrClosed (wrapped), or nil
}

// Refusals of an append. They say that nothing of it was written.
var (
	ErrConflict  = errors.New("eventstore: wrong expected version")
	ErrTaken     = errors.New("eventstore: claim is taken")
	ErrKeyReused = errors.New("eventstore: idempotency key was used with another request")
	ErrClosed    = errors.New("eventstore: stream is closed")
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
	// AppendBatch appends each of batch, in order, each as a unit of its own
	// with a result of its own; those that succeed are committed together. The
	// error is for the batch as a whole (ErrUnavailable, context) and means that
	// no result is known. An append sees the ones before it in the batch.
	AppendBatch(ctx context.Context, batch []Append) ([]Result, error)
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order and
	// without holes.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	// Head gives the checkpoint at the end of the log.
	Head(ctx context.Context) (Checkpoint, error)
	// Verify returns ErrForked if the record at c.Position is not c.EventID.
	Verify(ctx context.Context, c Checkpoint) error
	// Wait returns once the log reaches beyond after, at once for appends of this
	// process and within 250 ms for those of others, or with the context's error.
	Wait(ctx context.Context, after domain.Position) error
	// NextID draws the next id of a sequence.
	NextID(ctx context.Context, s domain.Sequence) (int64, error)
	// Close ends the store after running calls have returned.
	Close() error
}
