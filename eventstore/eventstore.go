// Package eventstore keeps the log: every record ever written, in one order.
//
// Its duty is the contract of a [Store], and the parts that are the same for every
// store: [Executor] reads, decides and appends, and [Relay] carries appended records to
// the configuration feed. The stores are eventstore/postgres and eventstore/sqlite.
// Both pass the suite in eventstore/eventstoretest.
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

// Expected versions with a special meaning; all other values are exact.
const (
	Any       domain.Version = -1 // whatever version the stream has
	NotExist  domain.Version = 0  // the stream must have no records
	MustExist domain.Version = -2 // the stream must have records
)

// StreamAppend is the part of an append for one event stream. Without events it is a
// guard: the append is refused if the stream has another version, and nothing is
// written to the stream. A closed stream cannot change, so a guard on it is allowed.
type StreamAppend struct {
	Stream   domain.StreamID
	Expected domain.Version
	Close    bool // the stream takes no records after the events of this append
}

// NewEvent is an encoded event to append. Events get positions in the order of
// [Append.Events], whatever their event streams.
type NewEvent struct {
	Stream int   // index into Append.Streams
	Owner  int64 // the account that the record belongs to; 0 = that of the append
	Name   string
	Schema int
	Data   []byte // JSON; kept byte for byte
}

// Append is written as one unit.
type Append struct {
	Account  int64 // owner of the records without an Owner of their own, 0 = nobody
	Meta     domain.Metadata
	Streams  []StreamAppend
	Events   []NewEvent     // at least one
	Releases []domain.Claim // released before Claims are made; a claim that its Owner does not hold is left as it is
	Claims   []domain.Claim // a claim that its Owner holds already is no conflict
	// Key makes the append idempotent within KeyScope ("" = not idempotent). A second
	// append with the same key and the same Hash writes nothing and gets the positions
	// of the first one.
	Key      string
	KeyScope string
	Hash     [32]byte
	// Subject is stored with the key and returned with a duplicate. A duplicate's own
	// subject may be an id that was drawn for it and never used.
	Subject domain.StreamID
}

// Result is the outcome of one append: Err, or the positions of its records. The checks
// are made in the order key, expected versions, closed streams, claims. The first check
// that fails gives the error.
type Result struct {
	First, Last domain.Position
	// Records are those written by this call, as a reader gets them.
	Records []domain.Record
	// Duplicate says that the key was used before and that this call wrote nothing.
	// First, Last and Subject are those of the append that used the key.
	Duplicate bool
	Subject   domain.StreamID
	Err       error // ErrConflict, ErrTaken, ErrKeyReused, ErrClosed, ErrMalformed (wrapped), or nil
}

// KeyUse is what the log stores about an idempotency key.
type KeyUse struct {
	Hash        [32]byte
	First, Last domain.Position
	Subject     domain.StreamID
}

// Refusals of an append. They mean that nothing of it was written.
var (
	ErrConflict  = errors.New("eventstore: wrong expected version")
	ErrTaken     = errors.New("eventstore: claim is held by another")
	ErrKeyReused = errors.New("eventstore: idempotency key was used with another request")
	ErrClosed    = errors.New("eventstore: stream is closed")
	ErrMalformed = errors.New("eventstore: malformed append")
	// ErrForked is returned to a follower whose checkpoint is not in this log: the log
	// was rolled back, or it is another log.
	ErrForked = errors.New("eventstore: the log does not contain the checkpoint")
	// ErrSchema is returned when a database is opened whose schema is older or newer
	// than this program knows.
	ErrSchema = errors.New("eventstore: the version of the database schema does not fit this program")
	// ErrUnavailable wraps failures to reach the database. After it an append may or
	// may not have been written; a retry with the same Key tells.
	ErrUnavailable = errors.New("eventstore: database is unavailable")
)

// TakenError names the claim that another stream holds. It is an [ErrTaken].
type TakenError struct{ Claim domain.Claim }

// Error implements error.
func (e *TakenError) Error() string {
	return fmt.Sprintf("%v: %s %q", ErrTaken, e.Claim.Scope, e.Claim.Value)
}

// Is makes errors.Is(err, ErrTaken) true.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// Checkpoint is the place that a follower has reached. EventID is the id of the record
// at Position; it shows whether the log was rolled back. It is zero at position 0.
type Checkpoint struct {
	Position domain.Position
	EventID  domain.EventID
}

// Store is the contract of a store, as the packages above use it and the suite tests
// it. All methods may be called concurrently.
type Store interface {
	Searcher
	// AppendBatch appends each element of batch in order, each as a unit of its own
	// with a result of its own. Those that succeed are committed together. The error is
	// for the batch as a whole (ErrUnavailable, context) and means that no result is
	// known. An append sees the appends before it in the batch.
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
	// KeyUse gives the use of an idempotency key; ok is false when the key was not
	// used.
	KeyUse(ctx context.Context, scope, key string) (use KeyUse, ok bool, err error)
	// Holder gives the event stream that holds a claim, "" when nobody does.
	Holder(ctx context.Context, scope, value string) (domain.StreamID, error)
	// Wait returns when the log has records after the position after: at once for
	// appends of this process, and within 250 ms for those of other processes.
	// Otherwise it returns the context's error or ErrUnavailable.
	Wait(ctx context.Context, after domain.Position) error
	// NextID draws the next id of a sequence.
	NextID(ctx context.Context, s domain.Sequence) (int64, error)
	// Close ends the store after running calls have returned.
	Close() error
}
