package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of webhooks: a row for each that was not deleted, the list of all, and
// the list of each user's; the operator is user 0.

// AllWebhooks lists every live webhook.
const AllWebhooks Index = "webhooks"

// WebhooksOfUser lists the live webhooks that belong to a user.
func WebhooksOfUser(userID int64) Index { return numbered("webhooks-of-user", userID) }

// WebhookRow is the read model of a webhook.
type WebhookRow struct {
	Versions
	domain.Webhook
}

func (r *WebhookRow) versions() *Versions { return &r.Versions }

func (r *WebhookRow) fold(e domain.Event, at time.Time) { r.Webhook.Apply(e, at) }

func (r *WebhookRow) live() bool { return r.Webhook.Live() }

func (r *WebhookRow) indexes() []Index { return []Index{AllWebhooks, WebhooksOfUser(r.UserID)} }

func (r *WebhookRow) takesAlong() (Key, bool) { return Key{}, false }

// Webhook gives a live webhook.
func (r *Reader) Webhook(ctx context.Context, id int64) (row WebhookRow, ok bool, err error) {
	return get[WebhookRow](ctx, r, Key{Webhooks, id})
}

// Webhooks lists the webhooks of an index, [AllWebhooks] or [WebhooksOfUser], with an
// id above after; next is 0 at the end, otherwise the value for after.
func (r *Reader) Webhooks(ctx context.Context, index Index, after int64, limit int) (rows []WebhookRow, next int64, err error) {
	return list[WebhookRow](ctx, r.store, Webhooks, index, after, limit)
}
