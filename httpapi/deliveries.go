package httpapi

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/webhook"
)

// Delivery is an event on its way to a webhook.
type Delivery struct {
	DeliveryID int64            `json:"delivery_id" example:"17"`
	MessageID  string           `json:"message_id" doc:"The webhook-id header; it is the same for every attempt" example:"0190b4c8-6f0e-7c5d-9a53-1f1d5f0a8b11"`
	Type       string           `json:"type" doc:"The event, or webhook_test" example:"mapping_created"`
	Position   *domain.Position `json:"position" doc:"The position of the event in the log; null for a test" example:"42"`
	Status     string           `json:"status" enum:"pending,delivered,failed" doc:"failed: no attempt follows" example:"delivered"`
	Attempts   int              `json:"attempts" doc:"The number of attempts" example:"1"`
	CreatedAt  time.Time        `json:"created_at" example:"2026-01-02T15:04:05Z"`
	NextAt     *time.Time       `json:"next_at" doc:"The time of the next attempt; null when no attempt follows" example:"2026-01-02T15:04:05Z"`
	Last       *Attempt         `json:"last" doc:"The last attempt; null when there was none"`
}

// Attempt is the result of sending a delivery once.
type Attempt struct {
	At         time.Time `json:"at" example:"2026-01-02T15:04:05Z"`
	DurationMS int64     `json:"duration_ms" example:"120"`
	StatusCode *int      `json:"status_code" doc:"The status of the receiver's answer; null without an answer" example:"200"`
	Error      *string   `json:"error" doc:"Why the attempt failed; null after a success" example:"the receiver answered 500 Internal Server Error"`
}

// deliveriesInput asks for a page of deliveries.
type deliveriesInput struct {
	IDPath
	After int64 `query:"after" minimum:"0" doc:"Only older items. Use next of the previous page" example:"17"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to return"`
}

type deliveryInput struct {
	IDPath
	Delivery int64 `path:"delivery" minimum:"1" doc:"The id of the delivery" example:"17"`
}

// sentInput is the input of requests that send something and write nothing into the log.
type sentInput struct {
	IDPath
	MinPosition domain.Position `header:"Min-Position" minimum:"0" doc:"Read the webhook at this position of the log or later (X-Position of a write)" example:"42"`
}

const (
	codeDeliveryNotFound    domain.Code = "delivery_not_found"
	codeWebhookDisabled     domain.Code = "webhook_disabled"
	codeDeliveryUnavailable domain.Code = "deliveries_unavailable"
)

func (a *api) registerDeliveries(op func(method, path, id, summary string, errs ...int) huma.Operation) {
	accepted := func(path, id, summary string) huma.Operation {
		o := op(http.MethodPost, path, id, summary, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity)
		o.DefaultStatus = http.StatusAccepted
		return o
	}
	huma.Register(a.huma, op(http.MethodGet, "/{id}/deliveries", "list-deliveries", "List what was sent to a webhook lately, and what waits, the newest first", errorsOfGet...), a.listDeliveries)
	huma.Register(a.huma, accepted("/{id}/test", "test-webhook", "Send a webhook something, and answer with what came of it"), a.testWebhook)
	huma.Register(a.huma, accepted("/{id}/deliveries/{delivery}/redeliver", "redeliver", "Send a delivery again, at once"), a.redeliver)
}

func (a *api) listDeliveries(ctx context.Context, in *deliveriesInput) (*pageAnswer[Delivery], error) {
	if _, err := a.webhook(ctx, in.ID, 0); err != nil {
		return nil, err
	}
	list, err := a.config.Webhooks.List(ctx, in.ID, in.After, in.Limit+1)
	if err != nil {
		return nil, a.undelivered(ctx, err)
	}
	next := int64(0)
	if len(list) > in.Limit {
		list = list[:in.Limit]
		next = list[in.Limit-1].ID
	}
	return pageOf(list, next, deliveryBody), nil
}

// undelivered is the answer while deliveries cannot be read or written.
func (a *api) undelivered(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		a.logger.WarnContext(ctx, "deliveries cannot be reached", "request", tracked(ctx).id, "error", err)
	}
	return problem(http.StatusServiceUnavailable, codeDeliveryUnavailable, "The store of deliveries does not answer now. Try again in a moment.")
}

// sendable gives a webhook that is enabled.
func (a *api) sendable(ctx context.Context, id int64, min domain.Position) error {
	row, err := a.webhook(ctx, id, min)
	if err == nil && row.Disabled {
		return problem(http.StatusConflict, codeWebhookDisabled, "The webhook is disabled. Enable it first.",
			&Fault{Location: "path.id", Message: "is disabled"})
	}
	return err
}

func (a *api) testWebhook(ctx context.Context, in *sentInput) (*struct{ Body Delivery }, error) {
	if err := a.sendable(ctx, in.ID, in.MinPosition); err != nil {
		return nil, err
	}
	d, err := a.config.Webhooks.Add(ctx, webhook.Delivery{Webhook: in.ID, Message: "test-" + hex.EncodeToString(drawBytes(16)), Event: webhook.TestEvent, Created: a.now()})
	if err != nil {
		return nil, a.undelivered(ctx, err)
	}
	return &struct{ Body Delivery }{deliveryBody(a.attempted(ctx, d))}, nil
}

// attempted waits for the first attempt of a delivery, so that a test of a webhook needs
// one request. When no attempt is made in time, it gives the delivery as it is.
func (a *api) attempted(ctx context.Context, d webhook.Delivery) webhook.Delivery {
	ctx, cancel := context.WithTimeout(ctx, a.config.TestWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for d.Attempts == 0 {
		select {
		case <-ctx.Done():
			return d
		case <-tick.C:
		}
		// The newest come first, so that it is among these.
		list, err := a.config.Webhooks.List(ctx, d.Webhook, d.ID+1, 1)
		if err != nil || len(list) == 0 || list[0].ID != d.ID {
			return d
		}
		d = list[0]
	}
	return d
}

func (a *api) redeliver(ctx context.Context, in *deliveryInput) (*struct{ Body Delivery }, error) {
	if err := a.sendable(ctx, in.ID, 0); err != nil {
		return nil, err
	}
	d, err := a.config.Webhooks.Redeliver(ctx, in.ID, in.Delivery, a.now())
	if errors.Is(err, webhook.ErrNone) {
		return nil, problem(http.StatusNotFound, codeDeliveryNotFound, "There is no such delivery of this webhook; they are kept for a week.",
			&Fault{Location: "path.delivery", Message: "is no delivery of this webhook"})
	}
	if err != nil {
		return nil, a.undelivered(ctx, err)
	}
	return &struct{ Body Delivery }{deliveryBody(d)}, nil
}

func deliveryBody(d webhook.Delivery) Delivery {
	b := Delivery{DeliveryID: d.ID, MessageID: d.Message, Type: d.Event, Status: string(d.Status), Attempts: d.Attempts, CreatedAt: d.Created}
	if d.Position != 0 {
		b.Position = &d.Position
	}
	if d.Status == webhook.Pending {
		b.NextAt = &d.NextAt
	}
	if !d.Attempted.IsZero() {
		b.Last = &Attempt{At: d.Attempted, DurationMS: d.Took.Milliseconds()}
		if d.Code != 0 {
			b.Last.StatusCode = &d.Code
		}
		if d.Error != "" {
			b.Last.Error = &d.Error
		}
	}
	return b
}
