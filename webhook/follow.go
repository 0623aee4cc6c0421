package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	followPage  = 500
	saveEvery   = time.Second // for the checkpoint, while there are no deliveries
	followPause = time.Second // after an error
)

// Begin sets the checkpoint at the end of the log, if there is none yet. It is called
// before any record can be written that a webhook must get. A log that was moved here
// may contain webhooks already. They get the events from now on: at the old place they
// have got the others.
func (d *Deliverer) Begin(ctx context.Context) error {
	at, began, was, err := d.store.Load(ctx)
	if err != nil {
		return err
	}
	head, err := d.head(ctx)
	if err != nil {
		return fmt.Errorf("begin webhooks: %w", err)
	}
	if began && at <= head {
		return nil
	}
	if began {
		return d.beginAgain(ctx, at, head, was)
	}
	endpoints, err := d.endpoints(ctx, head)
	if err != nil {
		return fmt.Errorf("begin webhooks: %w", err)
	}
	return d.store.Begin(ctx, head, endpoints)
}

// beginAgain sets the checkpoint at the end of a log that was rolled back, for example
// to a backup. Its positions are used again, so the stored state is wrong.
func (d *Deliverer) beginAgain(ctx context.Context, at, head domain.Position, was []Endpoint) error {
	d.logger.Error("the log was rolled back to a state before the last delivery, beginning again at its end", "checkpoint", int64(at), "end", int64(head))
	endpoints, err := d.endpoints(ctx, head)
	if err != nil {
		return fmt.Errorf("begin webhooks again: %w", err)
	}
	back := Advance{From: at, To: head, Now: d.now()}
	for _, e := range was {
		back.Ended = append(back.Ended, e.ID)
	}
	if err := d.store.Advance(ctx, back); errors.Is(err, ErrMoved) {
		return nil // another process does the same
	} else if err != nil {
		return err
	}
	return d.store.Advance(ctx, Advance{From: head, To: head, Now: d.now(), Endpoints: endpoints})
}

// readAfter reads the records after a place, together with the record at the place.
// goesOn is false when that record is missing or is another one: the log was rolled
// back.
func (d *Deliverer) readAfter(ctx context.Context, known *domain.Place) (records []domain.Record, goesOn bool, err error) {
	if known.Position == 0 {
		records, err = d.log.ReadAll(ctx, 0, followPage)
		return records, true, err
	}
	records, err = d.log.ReadAll(ctx, known.Position-1, followPage+1)
	if err != nil {
		return nil, false, err
	}
	if len(records) == 0 || records[0].Position != known.Position || known.Parted(domain.PlaceOf(records[0])) {
		return nil, false, nil
	}
	*known = domain.PlaceOf(records[0])
	return records[1:], true, nil
}

// endpoints gives the webhooks as of a position.
func (d *Deliverer) endpoints(ctx context.Context, head domain.Position) ([]Endpoint, error) {
	b := newBook(d.log, nil)
	var names []string
	for _, e := range []domain.Event{domain.WebhookCreated{}, domain.WebhookChanged{}, domain.WebhookSecretRotated{}, domain.WebhookDisabled{},
		domain.WebhookEnabled{}, domain.WebhookDeleted{}, domain.UserRoleSet{}, domain.UserDisabled{}, domain.UserEnabled{}} {
		names = append(names, e.EventName())
	}
	for after := domain.Position(0); ; {
		records, err := d.log.Select(ctx, domain.Query{After: after, Before: head + 1, Names: names}, followPage)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if _, err := b.apply(ctx, r); err != nil {
				return nil, err
			}
			after = r.Position
		}
		if len(records) < followPage {
			break
		}
	}
	var a Advance
	b.flush(&a)
	return a.Endpoints, nil
}

func (d *Deliverer) head(ctx context.Context) (domain.Position, error) {
	last, err := d.log.Select(ctx, domain.Query{Newest: true}, 1)
	if err != nil || len(last) == 0 {
		return 0, err
	}
	return last[0].Position, nil
}

// follow turns records into deliveries until ctx ends. After an error it begins again
// from the stored state.
func (d *Deliverer) follow(ctx context.Context) {
	for failing := false; ctx.Err() == nil; {
		err := d.followFrom(ctx, &failing)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrMoved):
			d.logger.Info("another process has turned records into deliveries, beginning again from there")
		case !failing:
			d.logger.Warn("cannot turn records into deliveries, trying again", "error", err)
		}
		failing = true
		wait.For(ctx, followPause)
	}
}

func (d *Deliverer) followFrom(ctx context.Context, failing *bool) error {
	saved, began, endpoints, err := d.store.Load(ctx)
	if err != nil {
		return err
	}
	if !began {
		return errors.New("the webhooks have no checkpoint yet")
	}
	b := newBook(d.log, endpoints)
	at, last := saved, time.Now()
	known := domain.Place{Position: at} // its id is that of the record here
	d.position.Store(int64(at))
	for {
		records, goesOn, err := d.readAfter(ctx, &known)
		if err != nil {
			return err
		}
		if !goesOn {
			head, err := d.head(ctx)
			if err != nil {
				return err
			}
			return errors.Join(ErrMoved, d.beginAgain(ctx, saved, head, endpoints))
		}
		a := Advance{From: saved, Now: d.now()}
		for _, r := range records {
			deliveries, err := b.apply(ctx, r)
			if err != nil {
				return err
			}
			a.Deliveries = append(a.Deliveries, deliveries...)
			at = r.Position
			known = domain.PlaceOf(r)
		}
		b.flush(&a)
		a.To = at
		// An old checkpoint costs work and not correctness: without deliveries it is
		// written only from time to time.
		if something := len(a.Endpoints)+len(a.Ended)+len(a.Deliveries) > 0; something || at > saved && time.Since(last) >= saveEvery {
			if err := d.store.Advance(ctx, a); err != nil {
				return err
			}
			saved, last = at, time.Now()
			if something {
				d.kick()
			}
		}
		*failing = false
		d.position.Store(int64(at))
		d.metrics.position.Set(float64(at))
		if len(records) > 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, saveEvery)
		err = d.log.Wait(bounded, at)
		cancel()
		if err != nil && bounded.Err() == nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
