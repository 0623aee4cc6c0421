package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/usage"
)

// Quota is what an account may have and what it has.
type Quota struct {
	UserID int64 `json:"user_id" example:"100000001"`
	domain.Limits
	Clients        int64 `json:"clients" doc:"The present number" example:"2"`
	Mappings       int64 `json:"mappings" doc:"The present number" example:"1"`
	ActiveMappings int64 `json:"active_mappings" doc:"The number of enabled mappings" example:"1"`
}

// QuotaUse is a quota with what is used of it.
type QuotaUse struct {
	Quota
	CurrentMonthTraffic *int64    `json:"current_month_traffic" doc:"Bytes of both directions in this calendar month (UTC), live; null when unknown, for example in the past" example:"53477376"`
	ResetsAt            time.Time `json:"resets_at" doc:"The beginning of the next month" example:"2026-02-01T00:00:00Z"`
}

// quotaUse adds to a quota what is used. That is a number beside the log: when it
// cannot be read the quota can still be.
func (a *api) quotaUse(ctx context.Context, q Quota) QuotaUse {
	now := a.now()
	use := QuotaUse{Quota: q, ResetsAt: usage.NextMonth(now)}
	if _, past := momentOf(ctx); past {
		return use
	}
	if months, err := a.usage().Months(ctx, now, q.UserID); err == nil {
		used := months[q.UserID].Bytes()
		use.CurrentMonthTraffic = &used
	}
	return use
}

// SetQuotaBody is the body of PUT /users/{id}/quota. Its limits are for the document:
// left out, null and a number are three things (stay, unlimited, at most so many),
// so what was sent is in sent.
type SetQuotaBody struct {
	domain.Limits

	sent map[string]*int64
}

// TransformSchema implements [huma.SchemaTransformer]: a limit may be left out, and
// is no negative number.
func (SetQuotaBody) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	zero := 0.0
	for _, p := range s.Properties {
		p.Minimum = &zero
		p.Description += "; left out = as it is"
		p.PrecomputeMessages()
	}
	s.Required = nil
	s.PrecomputeMessages()
	return s
}

// UnmarshalJSON implements [json.Unmarshaler].
func (b *SetQuotaBody) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &b.Limits); err != nil {
		return err // it names the field
	}
	return json.Unmarshal(text, &b.sent)
}

// MarshalJSON implements [json.Marshaler]: it tells requests with one key apart.
func (b SetQuotaBody) MarshalJSON() ([]byte, error) { return json.Marshal(b.sent) }

// command gives the limits of the body and the names of those it leaves out.
func (b SetQuotaBody) command(id int64) domain.SetQuota {
	c := domain.SetQuota{ID: id}
	for _, field := range domain.LimitFields() {
		if limit, ok := b.sent[field.Name]; ok {
			*c.Limits.At(field.Name) = limit
		} else {
			c.Keep = append(c.Keep, field.Name)
		}
	}
	return c
}

type setQuotaInput struct {
	IDPath
	MatchHeader
	Body SetQuotaBody
}

type quotaAnswer struct {
	WriteAnswer
	Body QuotaUse
}

func (a *api) registerQuotas() {
	op := func(method, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/users/{id}/quota", id, "quotas", summary, errs...)
	}
	huma.Register(a.huma, conditional(op(http.MethodGet, "get-quota", "Show a user's quota and how much of it is used", errorsOfGet...)), a.getQuota)
	huma.Register(a.huma, op(http.MethodPut, "set-quota", "Set limits; what is held beyond a new limit stays", errorsOfPut...), a.setQuota)
	huma.Register(a.huma, op(http.MethodPost, "post-quota", "The same as PUT", errorsOfPut...), a.setQuota)
}

func (a *api) getQuota(ctx context.Context, in *oneInput) (*struct {
	ReadAnswer
	Body QuotaUse
}, error) {
	if _, err := a.user(ctx, in.ID, in.MinPosition); err != nil {
		return nil, err
	}
	q, err := a.quota(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	use := a.quotaUse(ctx, quotaBody(in.ID, q))
	used := int64(-1)
	if use.CurrentMonthTraffic != nil {
		used = *use.CurrentMonthTraffic
	}
	answer, err := in.tagged(fmt.Sprintf(`"%d-%d"`, q.Version, used)) // If-Match looks at the first
	if err != nil {
		return nil, err
	}
	return &struct {
		ReadAnswer
		Body QuotaUse
	}{answer, use}, nil
}

func (a *api) setQuota(ctx context.Context, in *setQuotaInput) (*quotaAnswer, error) {
	if domain.IsAnonymous(in.ID) {
		return nil, notFound(domain.CodeUserNotFound, "There is no such user.") // a client that is its own account
	}
	r, err := a.submit(ctx, in.MatchHeader, in.Body, in.Body.command(in.ID))
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	q, err := stateOf[*domain.Quota](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &quotaAnswer{answerOf(r), a.quotaUse(ctx, quotaBody(in.ID, quotaRow(projections.Versions{}, q)))}, nil
}

func quotaBody(userID int64, q projections.QuotaRow) Quota {
	return Quota{UserID: userID, Limits: q.Limits, Clients: q.Clients, Mappings: q.Mappings, ActiveMappings: q.ActiveMappings}
}
