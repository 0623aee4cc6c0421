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
	UserID                   int64  `json:"user_id" example:"100000001"`
	MaxClients               *int64 `json:"max_clients" doc:"null = unlimited, 0 = none" example:"10"`
	MaxMappings              *int64 `json:"max_mappings" doc:"null = unlimited, 0 = none" example:"50"`
	MaxActiveMappings        *int64 `json:"max_active_mappings" doc:"null = unlimited, 0 = none" example:"50"`
	MaxConnectionsPerMapping *int64 `json:"max_connections_per_mapping" doc:"At a time; null = unlimited, 0 = none" example:"100"`
	TotalBandwidthLimit      *int64 `json:"total_bandwidth_limit" doc:"Bytes per second; null = unlimited, 0 = none" example:"10485760"`
	MonthlyTrafficLimit      *int64 `json:"monthly_traffic_limit" doc:"Bytes per calendar month, UTC; null = unlimited, 0 = none" example:"1099511627776"`
	Clients                  int64  `json:"clients" doc:"How many there are" example:"2"`
	Mappings                 int64  `json:"mappings" doc:"How many there are" example:"1"`
	ActiveMappings           int64  `json:"active_mappings" doc:"How many of the mappings are not disabled" example:"1"`
}

// QuotaUse is a quota with what is used of it.
type QuotaUse struct {
	Quota
	CurrentMonthTraffic *int64    `json:"current_month_traffic" doc:"Bytes of both directions in this calendar month, UTC, live; null when it cannot be told, such as of the past" example:"53477376"`
	ResetsAt            time.Time `json:"resets_at" doc:"When the next month begins" example:"2026-02-01T00:00:00Z"`
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

// Limit is a limit in the body of a PUT, where left out, null and a number are
// three things: stay, unlimited, at most so many.
type Limit struct {
	set   bool
	value *int64
}

// UnmarshalJSON implements [json.Unmarshaler]. It is not called for a field that
// is left out.
func (l *Limit) UnmarshalJSON(b []byte) error {
	l.set = true
	return json.Unmarshal(b, &l.value)
}

// MarshalJSON implements [json.Marshaler].
func (l Limit) MarshalJSON() ([]byte, error) { return json.Marshal(l.value) }

// IsZero keeps a field that was left out out of the hash of the request.
func (l Limit) IsZero() bool { return !l.set }

// Schema implements [huma.SchemaProvider].
func (Limit) Schema(huma.Registry) *huma.Schema {
	zero := 0.0
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &zero, Nullable: true}
}

var _ huma.SchemaProvider = Limit{}

// SetQuotaBody is the body of PUT /users/{id}/quota.
type SetQuotaBody struct {
	MaxClients               Limit `json:"max_clients,omitzero" required:"false" doc:"null = unlimited, 0 = none; left out = as it is" example:"10"`
	MaxMappings              Limit `json:"max_mappings,omitzero" required:"false" doc:"null = unlimited, 0 = none; left out = as it is" example:"50"`
	MaxActiveMappings        Limit `json:"max_active_mappings,omitzero" required:"false" doc:"null = unlimited, 0 = none; left out = as it is" example:"50"`
	MaxConnectionsPerMapping Limit `json:"max_connections_per_mapping,omitzero" required:"false" doc:"At a time; null = unlimited, 0 = none; left out = as it is" example:"100"`
	TotalBandwidthLimit      Limit `json:"total_bandwidth_limit,omitzero" required:"false" doc:"Bytes per second; null = unlimited, 0 = none; left out = as it is" example:"10485760"`
	MonthlyTrafficLimit      Limit `json:"monthly_traffic_limit,omitzero" required:"false" doc:"Bytes per calendar month, UTC; null = unlimited, 0 = none; left out = as it is" example:"1099511627776"`
}

// command gives the limits of the body and the names of those it leaves out.
func (b SetQuotaBody) command(id int64) domain.SetQuota {
	c := domain.SetQuota{ID: id, Limits: domain.Limits{
		MaxClients: b.MaxClients.value, MaxMappings: b.MaxMappings.value, MaxActiveMappings: b.MaxActiveMappings.value,
		MaxConnectionsPerMapping: b.MaxConnectionsPerMapping.value,
		TotalBandwidthLimit:      b.TotalBandwidthLimit.value, MonthlyTrafficLimit: b.MonthlyTrafficLimit.value,
	}}
	for _, l := range []struct {
		name  string
		limit Limit
	}{
		{"max_clients", b.MaxClients},
		{"max_mappings", b.MaxMappings},
		{"max_active_mappings", b.MaxActiveMappings},
		{"max_connections_per_mapping", b.MaxConnectionsPerMapping},
		{"total_bandwidth_limit", b.TotalBandwidthLimit},
		{"monthly_traffic_limit", b.MonthlyTrafficLimit},
	} {
		if !l.limit.set {
			c.Keep = append(c.Keep, l.name)
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
	return Quota{UserID: userID, MaxClients: q.Limits.MaxClients, MaxMappings: q.Limits.MaxMappings,
		MaxActiveMappings: q.Limits.MaxActiveMappings, MaxConnectionsPerMapping: q.Limits.MaxConnectionsPerMapping,
		TotalBandwidthLimit: q.Limits.TotalBandwidthLimit, MonthlyTrafficLimit: q.Limits.MonthlyTrafficLimit,
		Clients: q.Clients, Mappings: q.Mappings, ActiveMappings: q.ActiveMappings}
}
