package webhook

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Transaction is what the operations of this file need from a database. All calls for
// one operation are one transaction. A store only writes each method as SQL; all
// decisions are in this package.
type Transaction interface {
	// Begin sets the checkpoint if there is none, and tells whether it did.
	Begin(ctx context.Context, at domain.Position) (first bool, err error)
	// Checkpoint gives the checkpoint; began is false when there is none.
	Checkpoint(ctx context.Context) (at domain.Position, began bool, err error)
	// Hold keeps the checkpoint where it is until the transaction ends, so that no
	// webhook is ended meanwhile.
	Hold(ctx context.Context) error
	// Move moves the checkpoint, and tells whether it was at from.
	Move(ctx context.Context, from, to domain.Position) (moved bool, err error)

	// Lock keeps others from changing how an endpoint does until the transaction ends.
	Lock(ctx context.Context, webhook int64) error
	Endpoints(ctx context.Context) ([]Endpoint, error)
	PutEndpoint(ctx context.Context, e Endpoint) error
	EndEndpoint(ctx context.Context, webhook int64) error
	// Enabled gives an endpoint that may be sent to at now, and how it does; ok is false
	// when there is none.
	Enabled(ctx context.Context, webhook int64, now time.Time) (e Endpoint, f Failing, ok bool, err error)
	SetFailing(ctx context.Context, webhook int64, f Failing) error

	// AddDeliveries adds deliveries that are due at now, and wakes their webhooks.
	AddDeliveries(ctx context.Context, now time.Time, all []Delivery) error
	// AddOne adds a delivery that is due when it was created, and gives it with its id.
	AddOne(ctx context.Context, d Delivery) (Delivery, error)
	EndDeliveries(ctx context.Context, webhook int64) error
	// Oldest gives the oldest delivery of a webhook that is due at now.
	Oldest(ctx context.Context, webhook int64, now time.Time) (d Delivery, ok bool, err error)
	// Attempted stores the state after an attempt, and tells whether that attempt was
	// the next one.
	Attempted(ctx context.Context, d Delivery) (next bool, err error)
	// Again makes a delivery due at now; ok is false when there is none.
	Again(ctx context.Context, webhook, id int64, now time.Time) (d Delivery, ok bool, err error)

	// Wake makes a webhook due at now. DueNext makes it due with its first pending
	// delivery.
	Wake(ctx context.Context, webhook int64, now time.Time) error
	DueNext(ctx context.Context, webhook int64) error
}

// Begin implements [Store.Begin] in a transaction.
func Begin(ctx context.Context, tx Transaction, at domain.Position, endpoints []Endpoint) error {
	first, err := tx.Begin(ctx, at)
	if err != nil || !first { // another was first
		return err
	}
	return putEndpoints(ctx, tx, endpoints)
}

// Load implements [Store.Load] in a transaction that sees one moment.
func Load(ctx context.Context, tx Transaction) (at domain.Position, began bool, endpoints []Endpoint, err error) {
	if at, began, err = tx.Checkpoint(ctx); err != nil || !began {
		return 0, false, nil, err
	}
	if endpoints, err = tx.Endpoints(ctx); err != nil {
		return 0, false, nil, err
	}
	return at, true, endpoints, nil
}

func putEndpoints(ctx context.Context, tx Transaction, endpoints []Endpoint) error {
	for _, e := range endpoints {
		if err := tx.Lock(ctx, e.ID); err != nil {
			return err
		}
		if err := tx.PutEndpoint(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements [Store.Advance] in a transaction.
func Apply(ctx context.Context, tx Transaction, a Advance) error {
	moved, err := tx.Move(ctx, a.From, a.To)
	if err != nil {
		return err
	}
	if !moved {
		return ErrMoved
	}
	if err := putEndpoints(ctx, tx, a.Endpoints); err != nil {
		return err
	}
	if len(a.Deliveries) > 0 {
		if err := tx.AddDeliveries(ctx, a.Now, a.Deliveries); err != nil {
			return err
		}
	}
	for _, id := range a.Ended {
		if err := tx.EndEndpoint(ctx, id); err != nil {
			return err
		}
		if err := tx.EndDeliveries(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// Next implements [Store.Next]. It reads outside of a transaction, because deliveries are
// many, and writes in one when there is nothing to send after all.
func Next(ctx context.Context, reads Transaction, write func(do func(Transaction) error) error, webhook int64, now time.Time) (due Due, ok bool, err error) {
	e, f, ok, err := reads.Enabled(ctx, webhook, now)
	if err != nil || !ok {
		return Due{}, false, err
	}
	d, ok, err := reads.Oldest(ctx, webhook, now)
	if err != nil {
		return Due{}, false, err
	}
	if ok {
		return Due{Delivery: d, Endpoint: e, Failing: f}, true, nil
	}
	// What it was woken for is no more, or was asked for by hand and comes later.
	return Due{}, false, write(func(tx Transaction) error {
		if err := tx.Lock(ctx, webhook); err != nil {
			return err
		}
		return setFailing(ctx, tx, webhook, f)
	})
}

// setFailing notes how an endpoint does and when it is due next.
func setFailing(ctx context.Context, tx Transaction, webhook int64, f Failing) error {
	if err := tx.SetFailing(ctx, webhook, f); err != nil {
		return err
	}
	return tx.DueNext(ctx, webhook)
}

// Note implements [Store.Finish] in a transaction.
func Note(ctx context.Context, tx Transaction, o Outcome) error {
	if err := tx.Lock(ctx, o.Webhook); err != nil {
		return err
	}
	next, err := tx.Attempted(ctx, o.Delivery)
	if err != nil {
		return err
	}
	if !next {
		return ErrMoved
	}
	return setFailing(ctx, tx, o.Webhook, o.Failing)
}

// Add implements [Store.Add] in a transaction.
func Add(ctx context.Context, tx Transaction, d Delivery) (Delivery, error) {
	if err := tx.Hold(ctx); err != nil {
		return d, err
	}
	d, err := tx.AddOne(ctx, d)
	if err != nil {
		return d, err
	}
	return d, tx.Wake(ctx, d.Webhook, d.NextAt)
}

// Redeliver implements [Store.Redeliver] in a transaction.
func Redeliver(ctx context.Context, tx Transaction, webhook, id int64, now time.Time) (Delivery, error) {
	if err := tx.Hold(ctx); err != nil {
		return Delivery{}, err
	}
	if err := tx.Lock(ctx, webhook); err != nil {
		return Delivery{}, err
	}
	d, ok, err := tx.Again(ctx, webhook, id, now)
	if err != nil {
		return Delivery{}, err
	}
	if !ok {
		return Delivery{}, ErrNone
	}
	return d, tx.Wake(ctx, webhook, d.NextAt)
}

// Millis is how stores keep a time: milliseconds since 1970, 0 for the zero time.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Moment is the reverse of [Millis].
func Moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
