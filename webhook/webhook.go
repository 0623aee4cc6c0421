// Package webhook tells others what happened: each record of the log, at least
// once, to every webhook that asks for it and whose owner may see it.
//
// Its duty: a [Deliverer] follows the log with one durable checkpoint. For each
// record it writes a [Delivery] for every webhook that wants it, in the same
// transaction as the checkpoint, so that nothing is missed; then it sends them,
// signed as Standard Webhooks says, until they are taken or it gives up. A
// [Store] keeps both. [Keys] derives the secrets, [Networks] says what may be
// reached.
//
// Its limits: one process delivers at a time, and one delivery of a webhook is
// under way at a time. While a receiver takes what it is sent, it gets it in the
// order of the log. What it did not take is sent again later, behind what has
// happened since: the position tells. A process that is killed sends again what
// was under way, under the same message id.
package webhook

import (
	"context"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Endpoint is a webhook as of the checkpoint, with what counts of its owner.
type Endpoint struct {
	domain.Webhook
	OwnerAdmin    bool `json:"owner_admin,omitempty"`
	OwnerDisabled bool `json:"owner_disabled,omitempty"`
}

// Active reports whether the endpoint is told anything.
func (e Endpoint) Active() bool { return e.Live() && !e.Disabled && !e.OwnerDisabled }

// Sees reports whether the endpoint's owner may see a record: what belongs to the
// account, or for an admin that asked for it, everything. It is the rule of the
// audit.
func (e Endpoint) Sees(r domain.Record) bool {
	return e.All && e.OwnerAdmin || e.UserID != 0 && r.Owner == e.UserID
}

// Status says what became of a delivery.
type Status string

// The statuses.
const (
	Pending   Status = "pending"   // it is sent, or sent again, when its time comes
	Delivered Status = "delivered" // the receiver took it
	Failed    Status = "failed"    // it was given up
)

// TestEvent is the name of what is sent to try a webhook out. It is no event.
const TestEvent = "webhook_test"

// Delivery is one event on its way to one webhook.
type Delivery struct {
	ID       int64
	Webhook  int64
	Message  string          // the webhook-id header: the same at every attempt
	Position domain.Position // of the record; 0 for a test
	Event    string
	Status   Status
	Created  time.Time
	Attempts int       // made so far
	Failures int       // of them since it was created, or last asked for by hand
	NextAt   time.Time // when it is sent next, while it is pending

	// Of the last attempt, when there was one.
	Attempted time.Time
	Took      time.Duration
	Code      int    // the status the receiver answered with; 0 = no answer
	Error     string // why it was no success
}

// Advance is what records up to a position come to.
type Advance struct {
	From, To   domain.Position
	Now        time.Time
	Endpoints  []Endpoint // that began or changed: whatever they failed at before is forgotten
	Ended      []int64    // webhooks that were deleted
	Deliveries []Delivery // new ones
}

// Due is a delivery to be sent now.
type Due struct {
	Delivery
	Endpoint Endpoint
	Failing  Failing
}

// Failing says how an endpoint has failed since its last success, over all of its
// deliveries.
type Failing struct {
	Times int       // attempts, one after the other
	Since time.Time // of the first; zero = it does not
	Rest  time.Time // it is sent nothing before that
}

// Outcome is what an attempt came to.
type Outcome struct {
	Delivery // as it is from now on
	Failing  Failing
}

// What is kept, and how much.
const (
	KeptFor  = 7 * 24 * time.Hour // after a delivery is over
	KeptMost = 1000               // of those of one webhook
	// MaxWaiting is how many deliveries may wait for one webhook. One that is sent
	// more than it takes is disabled: what waits would otherwise grow without end.
	MaxWaiting = 100_000
)

// ErrMoved says that another process did the work meanwhile.
var ErrMoved = errors.New("webhook: another process has gone on")

// ErrNone says that there is no such delivery.
var ErrNone = errors.New("webhook: there is no such delivery")

// Store keeps deliveries and the checkpoint. Its methods may be called
// concurrently, and by any number of processes over the same database. Times are
// kept to the millisecond.
type Store interface {
	// Begin sets the checkpoint, when there is none yet.
	Begin(ctx context.Context, at domain.Position, endpoints []Endpoint) error
	// Load gives the checkpoint and the endpoints as of it; began is false when
	// there is none yet.
	Load(ctx context.Context) (at domain.Position, began bool, endpoints []Endpoint, err error)
	// Advance writes what records come to and moves the checkpoint, both or none.
	// When the checkpoint is not at From it is [ErrMoved].
	Advance(ctx context.Context, a Advance) error

	// Ready lists webhooks, with their owners, that have something to be sent now,
	// those that have waited longest first.
	Ready(ctx context.Context, now time.Time, limit int) ([]Ready, error)
	// Next gives the oldest delivery of a webhook that is to be sent now, if any.
	Next(ctx context.Context, webhook int64, now time.Time) (d Due, ok bool, err error)
	// Finish notes an attempt; Attempts counts it. When it was noted before, it is
	// [ErrMoved].
	Finish(ctx context.Context, o Outcome) error

	// List gives deliveries of a webhook with an id below before, the newest first.
	List(ctx context.Context, webhook, before int64, limit int) ([]Delivery, error)
	// Add adds a delivery to be sent at once, and gives it with its id.
	Add(ctx context.Context, d Delivery) (Delivery, error)
	// Redeliver has a delivery sent again at once, and gives it, or [ErrNone].
	Redeliver(ctx context.Context, webhook, id int64, now time.Time) (Delivery, error)

	// Waiting counts the deliveries that are pending, of all webhooks.
	Waiting(ctx context.Context) (int64, error)
	// Crowded lists webhooks for which more than so many wait.
	Crowded(ctx context.Context, most int64) ([]int64, error)
	// Prune deletes what is kept no longer.
	Prune(ctx context.Context, now time.Time) error
	Close() error
}

// Ready is a webhook with something to be sent.
type Ready struct{ Webhook, Owner int64 }
