// Package webhook tells others what happened: it sends each record of the log, at least
// once, to every webhook that asks for it and whose owner may see it.
//
// Its duty: a [Deliverer] follows the log with one durable checkpoint. For each record
// it writes a [Delivery] for every webhook that wants the record, in the same
// transaction as the checkpoint, so that nothing is missed. Then it sends the
// deliveries, signed as Standard Webhooks says, until the receiver accepts them or the
// deliverer gives up. A [Store] keeps deliveries and checkpoint. [Keys] derives the
// secrets, [Networks] says which addresses may be reached.
//
// Its limits: one process delivers at a time, and one delivery of a webhook is under
// way at a time. While a receiver accepts its messages, it gets them in the order of
// the log. A message that it did not accept is sent again later, after newer messages;
// the position shows its place. A process that was killed sends the deliveries that
// were under way again, under the same message id.
package webhook

import (
	"context"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Endpoint is a webhook as of the checkpoint, with the state of its owner that matters.
type Endpoint struct {
	domain.Webhook
	OwnerAdmin    bool `json:"owner_admin,omitempty"`
	OwnerDisabled bool `json:"owner_disabled,omitempty"`
}

// Active reports whether the endpoint gets events.
func (e Endpoint) Active() bool { return e.Live() && !e.Disabled && !e.OwnerDisabled }

// Sees reports whether the endpoint's owner may see a record: the records of the
// account, or, for an admin that asked for all, every record. The audit has the same
// rule.
func (e Endpoint) Sees(r domain.Record) bool {
	return e.All && e.OwnerAdmin || e.UserID != 0 && r.Owner == e.UserID
}

// Status is the status of a delivery.
type Status string

// The statuses.
const (
	Pending   Status = "pending"   // it is sent, or sent again, when its time comes
	Delivered Status = "delivered" // the receiver accepted it
	Failed    Status = "failed"    // the deliverer gave it up
)

// TestEvent is the name in a message that tests a webhook. It is not an event.
const TestEvent = "webhook_test"

// Delivery is one event for one webhook.
type Delivery struct {
	ID       int64
	Webhook  int64
	Message  string          // the webhook-id header: the same at every attempt
	Position domain.Position // of the record; 0 for a test
	Event    string
	Status   Status
	Created  time.Time
	Attempts int       // so far
	Failures int       // since it was created, or last redelivered by hand
	NextAt   time.Time // when it is sent next, while it is pending

	// These are about the last attempt, if there was one.
	Attempted time.Time
	Took      time.Duration
	Code      int    // the status of the receiver's answer; 0 = no answer
	Error     string // why the attempt failed
}

// Advance is the change that follows from the records up to a position.
type Advance struct {
	From, To   domain.Position
	Now        time.Time
	Endpoints  []Endpoint // that began or changed; earlier failures are forgotten
	Ended      []int64    // webhooks that were deleted
	Deliveries []Delivery // new ones
}

// Due is a delivery to be sent now.
type Due struct {
	Delivery
	Endpoint Endpoint
	Failing  Failing
}

// Failing describes the failures of an endpoint since its last success, over all of its
// deliveries.
type Failing struct {
	Times int       // failed attempts in a row
	Since time.Time // of the first failure; zero = no failures
	Rest  time.Time // nothing is sent before this time
}

// Outcome is the result of an attempt.
type Outcome struct {
	Delivery // in its state after the attempt
	Failing  Failing
}

// How long deliveries are kept, and how many.
const (
	KeptFor  = 7 * 24 * time.Hour // after the end of a delivery
	KeptMost = 1000               // finished deliveries of one webhook
	// MaxWaiting is how many deliveries may wait for one webhook. A webhook with more
	// is disabled: otherwise their number would grow without end.
	MaxWaiting = 100_000
)

// ErrMoved says that another process has done the work.
var ErrMoved = errors.New("webhook: another process has moved the checkpoint or made the attempt")

// ErrNone says that there is no such delivery.
var ErrNone = errors.New("webhook: there is no such delivery")

// Store keeps deliveries and the checkpoint. Its methods may be called concurrently,
// and by any number of processes over the same database. Times are stored to the
// millisecond.
type Store interface {
	// Begin sets the checkpoint, if there is none yet.
	Begin(ctx context.Context, at domain.Position, endpoints []Endpoint) error
	// Load gives the checkpoint and the endpoints as of it; began is false when
	// there is none yet.
	Load(ctx context.Context) (at domain.Position, began bool, endpoints []Endpoint, err error)
	// Advance writes the changes that follow from records and moves the checkpoint,
	// both or neither. It gives [ErrMoved] when the checkpoint is not at From.
	Advance(ctx context.Context, a Advance) error

	// Ready lists webhooks, with their owners, that have something to send now; the
	// longest wait comes first.
	Ready(ctx context.Context, now time.Time, limit int) ([]Ready, error)
	// Next gives the oldest delivery of a webhook that is to be sent now, if any.
	Next(ctx context.Context, webhook int64, now time.Time) (d Due, ok bool, err error)
	// Finish stores the result of an attempt; Attempts counts it. It gives [ErrMoved]
	// when that attempt was stored before.
	Finish(ctx context.Context, o Outcome) error

	// List gives deliveries of a webhook with an id below before, the newest first.
	List(ctx context.Context, webhook, before int64, limit int) ([]Delivery, error)
	// Add adds a delivery to be sent at once, and gives it with its id.
	Add(ctx context.Context, d Delivery) (Delivery, error)
	// Redeliver makes a delivery due again at once, and gives it. It gives [ErrNone] if
	// there is no such delivery.
	Redeliver(ctx context.Context, webhook, id int64, now time.Time) (Delivery, error)

	// Waiting counts the pending deliveries of all webhooks.
	Waiting(ctx context.Context) (int64, error)
	// Crowded lists webhooks with more than most waiting deliveries.
	Crowded(ctx context.Context, most int64) ([]int64, error)
	// Prune deletes data whose time of keeping is over.
	Prune(ctx context.Context, now time.Time) error
	Close() error
}

// Ready is a webhook with something to send.
type Ready struct{ Webhook, Owner int64 }
