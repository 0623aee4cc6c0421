package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/sqlite/internal/queries"
)

// transaction is a [webhook.Transaction]. It runs one statement for each delivery, because
// a statement costs no round trip here. No other transaction writes at the same time, so
// nothing has to be locked.
type transaction struct {
	q     *queries.Queries
	ended *bool // set when an endpoint has ended
}

func (t transaction) Begin(ctx context.Context, at domain.Position) (bool, error) {
	n, err := t.q.Begin(ctx, int64(at))
	return n > 0, err
}

func (t transaction) Checkpoint(ctx context.Context) (domain.Position, bool, error) {
	at, err := t.q.Checkpoint(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return domain.Position(at), err == nil, err
}

func (t transaction) Hold(context.Context) error { return nil }

func (t transaction) Move(ctx context.Context, from, to domain.Position) (bool, error) {
	n, err := t.q.Move(ctx, queries.MoveParams{Until: int64(to), Since: int64(from)})
	return n > 0, err
}

func (t transaction) Lock(context.Context, int64) error { return nil }

func (t transaction) Endpoints(ctx context.Context) ([]webhook.Endpoint, error) {
	states, err := t.q.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	endpoints := make([]webhook.Endpoint, len(states))
	for i, state := range states {
		if err := json.Unmarshal([]byte(state), &endpoints[i]); err != nil {
			return nil, err
		}
	}
	return endpoints, nil
}

func (t transaction) PutEndpoint(ctx context.Context, e webhook.Endpoint) error {
	state, err := json.Marshal(e)
	if err != nil {
		return err
	}
	active := int64(0)
	if e.Active() {
		active = 1
	}
	return t.q.PutEndpoint(ctx, queries.PutEndpointParams{Webhook: e.ID, Owner: e.UserID, State: string(state), Active: active})
}

func (t transaction) EndEndpoint(ctx context.Context, id int64) error {
	*t.ended = true
	return t.q.EndEndpoint(ctx, id)
}

func (t transaction) Enabled(ctx context.Context, id int64, now time.Time) (e webhook.Endpoint, f webhook.Failing, ok bool, err error) {
	row, err := t.q.Endpoint(ctx, queries.EndpointParams{Webhook: id, Now: due(now)})
	if errors.Is(err, sql.ErrNoRows) {
		return e, f, false, nil
	}
	if err != nil {
		return e, f, false, err
	}
	err = json.Unmarshal([]byte(row.State), &e)
	return e, webhook.Failing{Times: int(row.FailingTimes), Since: webhook.Moment(row.FailingSince)}, err == nil, err
}

func (t transaction) SetFailing(ctx context.Context, id int64, f webhook.Failing) error {
	return t.q.SetFailing(ctx, queries.SetFailingParams{Webhook: id, Times: int64(f.Times), Since: webhook.Millis(f.Since), Rest: webhook.Millis(f.Rest)})
}

func (t transaction) AddDeliveries(ctx context.Context, now time.Time, all []webhook.Delivery) error {
	at := webhook.Millis(now)
	for _, d := range all {
		if err := t.q.AddDelivery(ctx, queries.AddDeliveryParams{Webhook: d.Webhook, Message: d.Message, Position: int64(d.Position),
			Event: d.Event, Now: at}); err != nil {
			return err
		}
		if err := t.q.Wake(ctx, queries.WakeParams{Now: at, Webhook: d.Webhook}); err != nil {
			return err
		}
	}
	return nil
}

func (t transaction) AddOne(ctx context.Context, d webhook.Delivery) (webhook.Delivery, error) {
	row, err := t.q.Add(ctx, queries.AddParams{Webhook: d.Webhook, Message: d.Message, Position: int64(d.Position), Event: d.Event,
		Now: webhook.Millis(d.Created)})
	return delivery(row), err
}

func (t transaction) EndDeliveries(ctx context.Context, id int64) error {
	return t.q.EndDeliveries(ctx, id)
}

func (t transaction) Oldest(ctx context.Context, id int64, now time.Time) (webhook.Delivery, bool, error) {
	return found(t.q.Next(ctx, queries.NextParams{Webhook: id, Now: now.UnixMilli()}))
}

func (t transaction) Attempted(ctx context.Context, d webhook.Delivery) (bool, error) {
	n, err := t.q.Finish(ctx, queries.FinishParams{ID: d.ID, Before: int64(d.Attempts) - 1, Status: string(d.Status), Failures: int64(d.Failures),
		NextAt: webhook.Millis(d.NextAt), AttemptedAt: webhook.Millis(d.Attempted), Took: d.Took.Milliseconds(), Code: int64(d.Code), Error: d.Error})
	return n > 0, err
}

func (t transaction) Again(ctx context.Context, id, of int64, now time.Time) (webhook.Delivery, bool, error) {
	return found(t.q.Redeliver(ctx, queries.RedeliverParams{Webhook: id, ID: of, Now: webhook.Millis(now)}))
}

func (t transaction) Wake(ctx context.Context, id int64, now time.Time) error {
	return t.q.WakeNow(ctx, queries.WakeNowParams{Now: due(now), Webhook: id})
}

func (t transaction) DueNext(ctx context.Context, id int64) error { return t.q.NothingDue(ctx, id) }

// found tells a row that is not there from a failure.
func found(row queries.WebhookDelivery, err error) (webhook.Delivery, bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.Delivery{}, false, nil
	}
	return delivery(row), err == nil, err
}

func delivery(r queries.WebhookDelivery) webhook.Delivery {
	return webhook.Delivery{ID: r.ID, Webhook: r.Webhook, Message: r.Message, Position: domain.Position(r.Position), Event: r.Event,
		Status: webhook.Status(r.Status), Created: webhook.Moment(r.CreatedAt), Attempts: int(r.Attempts), Failures: int(r.Failures), NextAt: webhook.Moment(r.NextAt),
		Attempted: webhook.Moment(r.AttemptedAt), Took: time.Duration(r.Took) * time.Millisecond, Code: int(r.Code), Error: r.Error}
}

// due is a moment as a column is compared with it that may hold none.
func due(t time.Time) sql.NullInt64 { return sql.NullInt64{Int64: t.UnixMilli(), Valid: true} }
