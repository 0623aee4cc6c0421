package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Webhook is a webhook as the API shows it. Its secret is never shown again.
type Webhook struct {
	WebhookID   int64      `json:"webhook_id" example:"1234567890123"`
	UserID      *int64     `json:"user_id" doc:"The owner; null = the operator" example:"100000001"`
	URL         string     `json:"url" doc:"The address that receives the events" example:"https://example.org/hook"`
	Events      []string   `json:"events" nullable:"false" doc:"The events: names, or beginnings of names followed by *; empty = all" example:"[\"mapping_*\"]"`
	Scope       string     `json:"scope" enum:"own,all" doc:"own: events of the owner's account; all: events of all accounts, while the owner is an admin" example:"own"`
	Description string     `json:"description" example:"tells our billing"`
	Status      string     `json:"status" enum:"active,disabled" example:"active"`
	Reason      *string    `json:"reason" doc:"The reason, when the system disabled the webhook" example:"The receiver answered 410 Gone."`
	RotatedAt   *time.Time `json:"rotated_at" doc:"The time of the last rotation. For 24 h messages are signed with the earlier secret too" example:"2026-01-02T15:04:05Z"`
	CreatedAt   time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt   time.Time  `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// NewWebhook is a webhook with its secret, shown this once.
type NewWebhook struct {
	Webhook
	Secret string `json:"secret,omitempty" doc:"The secret that signs messages, as Standard Webhooks says. It is shown once: a repeat with the same Idempotency-Key does not show it" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
}

// CreateWebhookBody is the body of POST /webhooks.
type CreateWebhookBody struct {
	UserID      int64    `json:"user_id,omitempty" doc:"The owner. Default: the caller" example:"100000001"`
	URL         string   `json:"url" minLength:"1" maxLength:"2000" doc:"https, unless the server allows http" example:"https://example.org/hook"`
	Events      []string `json:"events,omitempty" maxItems:"50" doc:"Default: all" example:"[\"mapping_*\",\"client_created\"]"`
	Scope       string   `json:"scope,omitempty" enum:"own,all" doc:"Default: own; for the operator: all" example:"own"`
	Description string   `json:"description,omitempty" maxLength:"1000" example:"tells our billing"`
}

// ChangeWebhookBody is the body of PUT /webhooks/{id}; what is left out or null stays.
type ChangeWebhookBody struct {
	WebhookID   *int64    `json:"webhook_id,omitempty" doc:"May be sent, but cannot be changed" example:"1234567890123"`
	UserID      *int64    `json:"user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000001"`
	URL         *string   `json:"url,omitempty" minLength:"1" maxLength:"2000" example:"https://example.org/hook"`
	Events      *[]string `json:"events,omitempty" maxItems:"50" doc:"An empty list selects all events" example:"[\"mapping_*\"]"`
	Scope       *string   `json:"scope,omitempty" enum:"own,all" example:"own"`
	Description *string   `json:"description,omitempty" maxLength:"1000" example:"tells our billing"`
}

type webhookAnswer struct {
	WriteAnswer
	Body Webhook
}

const (
	scopeOwn = "own"
	scopeAll = "all"
)

func (a *api) registerWebhooks() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/webhooks"+path, id, "webhooks", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-webhook", "Have somebody told what happens; the secret is shown this once", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	created.Description = "Messages are sent and signed as https://www.standardwebhooks.com says, at least once: a receiver tells repeats by `webhook-id`. " +
		"The body is `{\"type\", \"timestamp\", \"position\", \"data\"}`, where `data` is the event as GET /audit shows it."
	huma.Register(a.huma, created, a.createWebhook)
	huma.Register(a.huma, op(http.MethodGet, "", "list-webhooks", "List webhooks", errorsOfList...), a.listWebhooks)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-webhook", "Show a webhook", errorsOfGet...)), a.getWebhook)
	huma.Register(a.huma, op(http.MethodPut, "/{id}", "change-webhook", "Change what a webhook is told, and where", errorsOfPut...), a.changeWebhook)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "delete-webhook", "Delete a webhook with what waits for it", errorsOfWrite...), a.deleteWebhook)
	huma.Register(a.huma, op(http.MethodPost, "/{id}/enable", "enable-webhook", "Let a webhook be told again; what waited is sent", errorsOfWrite...), a.setWebhookEnabled(true))
	huma.Register(a.huma, op(http.MethodPost, "/{id}/disable", "disable-webhook", "Tell a webhook nothing; what happens meanwhile is not sent later", errorsOfWrite...), a.setWebhookEnabled(false))
	huma.Register(a.huma, op(http.MethodPost, "/{id}/rotate-secret", "rotate-webhook-secret", "Replace a webhook's secret; the one before is signed with for 24 h as well", errorsOfWrite...), a.rotateWebhookSecret)
	a.registerDeliveries(op)
}

// webhookURL refuses what would be refused when it is dialled: whoever names it
// is to know now.
func (a *api) webhookURL(address string) error {
	if !a.config.WebhookHTTP && !strings.HasPrefix(strings.ToLower(address), "https://") {
		return invalid("body.url", "must begin with https://")
	}
	return nil
}

func (a *api) createWebhook(ctx context.Context, in *struct {
	KeyHeader
	Body CreateWebhookBody
}) (*struct {
	CreatedAnswer
	Body NewWebhook
}, error) {
	who, b := identity(ctx), in.Body
	c := domain.CreateWebhook{UserID: b.UserID, URL: b.URL, Events: b.Events, All: b.Scope == scopeAll, Description: b.Description}
	if b.UserID == 0 {
		c.UserID = who.UserID
	} else if _, err := forUser(ctx, b.UserID); err != nil {
		return nil, err
	}
	if c.UserID == 0 && b.Scope == "" {
		c.All = true // the operator's has nothing else
	}
	if err := mayHear(who, c.All); err != nil {
		return nil, err
	}
	if err := a.webhookURL(b.URL); err != nil {
		return nil, err
	}
	r, err := a.createWith(ctx, in.KeyHeader, b, func(context.Context) (int64, error) { return drawTimedID(a.now()), nil },
		func(id int64) domain.Command {
			c.ID = id
			return c
		})
	if err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	w, err := made[*domain.Webhook](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := NewWebhook{Webhook: webhookBody(w)}
	if !r.Duplicate {
		body.Secret = a.config.Webhooks.Secret(w.ID, w.Generation)
	}
	return &struct {
		CreatedAnswer
		Body NewWebhook
	}{createdOf(r, "webhooks"), body}, nil
}

// mayHear refuses a key what it may not read itself: a webhook is a way to read.
func mayHear(who Identity, all bool) error {
	switch {
	case !slices.Contains(who.Scopes, domain.ScopeRead):
		return problem(http.StatusForbidden, codeScopeMissing, "This key lacks the scope read, without which it cannot have anybody told.")
	case all && !who.admin():
		return problem(http.StatusForbidden, domain.CodeScopeDenied, "Only an admin may have anybody told everything.",
			&Fault{Location: "body.scope", Message: "must be own"})
	}
	return nil
}

func (a *api) changeWebhook(ctx context.Context, in *struct {
	IDPath
	MatchHeader
	Body ChangeWebhookBody
}) (*webhookAnswer, error) {
	b := in.Body
	if b.WebhookID != nil && *b.WebhookID != in.ID {
		return nil, invalid("body.webhook_id", fmt.Sprintf("cannot be changed, is %d", in.ID))
	}
	if b.UserID != nil {
		row, err := a.webhook(ctx, in.ID, 0)
		if err != nil {
			return nil, err
		}
		if row.UserID != *b.UserID {
			return nil, invalid("body.user_id", fmt.Sprintf("cannot be changed, is %d", row.UserID))
		}
	}
	who := identity(ctx)
	c := domain.ChangeWebhook{ID: in.ID, URL: b.URL, Events: b.Events, Description: b.Description, Admin: who.admin()}
	if b.Scope != nil {
		all := *b.Scope == scopeAll
		c.All = &all
	}
	if err := mayHear(who, c.All != nil && *c.All); err != nil {
		return nil, err
	}
	if b.URL != nil {
		if err := a.webhookURL(*b.URL); err != nil {
			return nil, err
		}
	}
	return a.webhookCommand(ctx, in.MatchHeader, b, c)
}

func (a *api) setWebhookEnabled(enabled bool) func(context.Context, *changeInput) (*webhookAnswer, error) {
	return func(ctx context.Context, in *changeInput) (*webhookAnswer, error) {
		return a.webhookCommand(ctx, in.MatchHeader, nil, domain.SetWebhookEnabled{ID: in.ID, Enabled: enabled})
	}
}

func (a *api) rotateWebhookSecret(ctx context.Context, in *changeInput) (*struct {
	WriteAnswer
	Body NewWebhook
}, error) {
	r, err := a.submit(ctx, in.MatchHeader, nil, domain.RotateWebhookSecret{ID: in.ID})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	w, err := stateOf[*domain.Webhook](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := NewWebhook{Webhook: webhookBody(w)}
	if !r.Duplicate {
		body.Secret = a.config.Webhooks.Secret(w.ID, w.Generation)
	}
	return &struct {
		WriteAnswer
		Body NewWebhook
	}{answerOf(r), body}, nil
}

func (a *api) deleteWebhook(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.DeleteWebhook{ID: in.ID})
}

func (a *api) webhookCommand(ctx context.Context, h MatchHeader, body any, c domain.Command) (*webhookAnswer, error) {
	r, err := a.submit(ctx, h, body, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	w, err := stateOf[*domain.Webhook](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &webhookAnswer{answerOf(r), webhookBody(w)}, nil
}

func (a *api) listWebhooks(ctx context.Context, in *ownedInput) (*pageAnswer[Webhook], error) {
	return listOwned(ctx, a, in, projections.AllWebhooks, projections.WebhooksOfUser, a.config.Reader.Webhooks,
		func(r projections.WebhookRow) Webhook { return webhookBody(&r.Webhook) })
}

func (a *api) getWebhook(ctx context.Context, in *oneInput) (*oneAnswer[Webhook], error) {
	row, err := a.webhook(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	return answerOne(in, etag(row.Version), webhookBody(&row.Webhook))
}

func webhookBody(w *domain.Webhook) Webhook {
	b := Webhook{WebhookID: w.ID, URL: w.URL, Events: append([]string{}, w.Events...), Scope: scopeOwn, Description: w.Description,
		Status: enabledStatus(w.Disabled), CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt}
	if w.UserID != 0 {
		b.UserID = &w.UserID
	}
	if w.All {
		b.Scope = scopeAll
	}
	if w.Reason != "" {
		b.Reason = &w.Reason
	}
	if !w.RotatedAt.IsZero() {
		b.RotatedAt = &w.RotatedAt
	}
	return b
}

func (a *api) webhook(ctx context.Context, id int64, min domain.Position) (projections.WebhookRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.WebhookRow, bool, error) {
			return a.config.Reader.Webhook(ctx, id)
		},
		func(ctx context.Context) (projections.WebhookRow, bool, error) {
			state, at, err := a.fold(ctx, domain.WebhookStream(id))
			if w, ok := state.(*domain.Webhook); ok && err == nil {
				return projections.WebhookRow{Versions: at, Webhook: *w}, true, nil
			}
			return projections.WebhookRow{}, false, err
		})
	if err == nil && (!found || !row.Webhook.Live()) {
		err = noWebhook()
	}
	return row, err
}

func noWebhook() error { return notFound(domain.CodeWebhookNotFound, "There is no such webhook.") }
