package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Mapping is a mapping as the API shows it.
type Mapping struct {
	MappingID      int64    `json:"mapping_id" example:"1001"`
	UserID         int64    `json:"user_id" example:"100000001"`
	Name           string   `json:"name" example:"intranet"`
	SourceClientID *int64   `json:"source_client_id" doc:"The client that listens; null when the mapping is public" example:"600000000"`
	TargetClientID int64    `json:"target_client_id" doc:"The client that dials" example:"600000001"`
	Protocol       Protocol `json:"protocol" example:"tcp"`
	domain.Origin
	PublicAddress *string `json:"public_address" doc:"The address for visitors, host:port; null without a public port, and while it is not known" example:"192.0.2.10:20000"`
	PublicURL     *string `json:"public_url" doc:"The URL for visitors; null without a public host, and while it is not known" example:"http://brave-otter.t.example.org/"`
	domain.Service
	domain.Options
	SourceUserID *int64         `json:"source_user_id" doc:"The user of the source client, when it is not the owner: the mapping was made from a share code" example:"100000002"`
	TargetUserID *int64         `json:"target_user_id" doc:"The user of the target client, when it is not the owner" example:"100000002"`
	ShareID      *int64         `json:"share_id" doc:"The share from which the mapping was made; null for none" example:"1234567890123"`
	Status       string         `json:"status" enum:"active,disabled" example:"active"`
	Health       []TargetHealth `json:"health" nullable:"true" doc:"What the health check has found of each target; null without a check" example:"[{\"client_id\":600000001,\"target\":\"127.0.0.1:3000\",\"state\":\"up\"}]"`
	CreatedAt    time.Time      `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt    time.Time      `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// TargetHealth is what the forwarders that have a mapping know of one of its targets.
type TargetHealth struct {
	ClientID int64  `json:"client_id" example:"600000001"`
	Target   string `json:"target" example:"127.0.0.1:3000"`
	State    string `json:"state" enum:"up,down,partly,unknown" doc:"partly: some forwarders reach it and some do not; unknown: none has looked lately" example:"up"`
}

// CreateMappingBody is the body of POST /mappings.
type CreateMappingBody struct {
	UserID         int64    `json:"user_id,omitempty" minimum:"0" doc:"The owner. Default: the caller" example:"100000001"`
	Name           string   `json:"name,omitempty" maxLength:"100" example:"intranet"`
	SourceClientID *int64   `json:"source_client_id,omitempty" minimum:"1" doc:"The client that listens. Default: none, the mapping is public" example:"600000000"`
	TargetClientID int64    `json:"target_client_id,omitempty" minimum:"1" doc:"The client that dials. Left out with targets: that of the first" example:"600000001"`
	Protocol       Protocol `json:"protocol" example:"tcp"`
	domain.Origin
	domain.Service
	domain.Options
}

type createMappingInput struct {
	KeyHeader
	Body CreateMappingBody
}

type changeMappingInput struct {
	IDPath
	MatchHeader
	Body ChangeMappingBody
}

type mappingAnswer struct {
	WriteAnswer
	Body Mapping
}

func (a *api) registerMappings() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, path, id, "mappings", summary, errs...)
	}
	created := op(http.MethodPost, "/mappings", "create-mapping", "Create a mapping, enabled", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createMapping)
	huma.Register(a.huma, op(http.MethodGet, "/mappings", "list-mappings", "List mappings", errorsOfList...), a.listMappings)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/mappings/{id}", "get-mapping", "Show a mapping", errorsOfGet...)), a.getMapping)
	huma.Register(a.huma, op(http.MethodPut, "/mappings/{id}", "change-mapping", "Change a mapping's name, listener, public port or host, or service", errorsOfPut...), a.changeMapping)
	huma.Register(a.huma, op(http.MethodDelete, "/mappings/{id}", "delete-mapping", "Delete a mapping: its listener closes and its streams end", errorsOfWrite...), a.deleteMapping)
	huma.Register(a.huma, op(http.MethodPost, "/mappings/{id}/enable", "enable-mapping", "Open a mapping's listener again", errorsOfWrite...), a.setMappingEnabled(true))
	huma.Register(a.huma, op(http.MethodPost, "/mappings/{id}/disable", "disable-mapping", "Close a mapping's listener and end its streams", errorsOfWrite...), a.setMappingEnabled(false))
	huma.Register(a.huma, op(http.MethodGet, "/users/{id}/mappings", "list-mappings-of-user", "List a user's mappings", errorsOfGet...), a.listMappingsOfUser)
	huma.Register(a.huma, op(http.MethodGet, "/clients/{id}/mappings", "list-mappings-of-client", "List the mappings a client is source or target of", errorsOfGet...), a.listMappingsOfClient)
}

func (a *api) createMapping(ctx context.Context, in *createMappingInput) (*struct {
	CreatedAnswer
	Body Mapping
}, error) {
	b := in.Body
	var source int64
	if b.SourceClientID != nil {
		source = *b.SourceClientID
	}
	user, err := forUser(ctx, b.UserID)
	if err != nil {
		return nil, err
	}
	switch {
	case b.TargetClientID != 0:
	case len(b.Targets) == 0:
		return nil, invalid("body.target_client_id", "is missing: the client that dials the service, or targets for several")
	default:
		b.TargetClientID = b.Targets[0].ClientID
	}
	if b.Options, err = b.Options.Sealed(a.seal(ctx, in.IdempotencyKey)); err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	identified := b
	if identified.Options, err = b.Options.Identified(in.IdempotencyKey); err != nil {
		return nil, a.refusal(ctx, err)
	}
	r, err := a.create(ctx, in.KeyHeader, identified, domain.SequenceMapping, func(id int64) domain.Command {
		return domain.CreateMapping{ID: id, UserID: user, Any: identity(ctx).admin(), SourceClientID: source, TargetClientID: b.TargetClientID,
			Protocol: domain.Protocol(b.Protocol),
			Parts:    domain.Parts{Name: b.Name, Origin: b.Origin, Service: b.Service, Options: b.Options}}
	})
	if err != nil {
		return nil, a.refusal(ctx, a.hidden(ctx, inBody(err)))
	}
	m, err := made[*domain.Mapping](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &struct {
		CreatedAnswer
		Body Mapping
	}{createdOf(r, "mappings"), a.mappingShown(ctx, m)}, nil
}

// listMappingsInput asks for a page of the mappings of something.
type listMappingsInput struct {
	IDPath
	PageInput
	MappingFilter
}

// MappingFilter narrows a list of mappings down.
type MappingFilter struct {
	Status   string   `query:"status" enum:"active,disabled" doc:"Only mappings of this status" example:"active"`
	Protocol Protocol `query:"protocol" doc:"Only mappings of this protocol" example:"tcp"`
}

func (f MappingFilter) pass(m *projections.MappingRow) bool {
	return (f.Status == "" || f.Status == enabledStatus(m.Disabled)) && (f.Protocol == "" || f.Protocol == Protocol(m.Protocol))
}

func (a *api) listMappings(ctx context.Context, in *struct {
	PageInput
	OwnerFilter
	MappingFilter
}) (*pageAnswer[Mapping], error) {
	index := projections.AllMappings
	if owner, ok, err := in.owner(ctx); err != nil {
		return nil, err
	} else if ok {
		index = projections.MappingsOfUser(owner)
	}
	return a.mappingsOf(ctx, index, in.PageInput, in.MappingFilter)
}

func (a *api) listMappingsOfUser(ctx context.Context, in *listMappingsInput) (*pageAnswer[Mapping], error) {
	if _, err := a.user(ctx, in.ID, in.MinPosition); err != nil {
		return nil, err
	}
	return a.mappingsOf(ctx, projections.MappingsOfUser(in.ID), in.PageInput, in.MappingFilter)
}

func (a *api) listMappingsOfClient(ctx context.Context, in *listMappingsInput) (*pageAnswer[Mapping], error) {
	if _, err := a.client(ctx, in.ID, in.MinPosition); err != nil {
		return nil, err
	}
	return a.mappingsOf(ctx, projections.MappingsOfClient(in.ID), in.PageInput, in.MappingFilter)
}

func (a *api) mappingsOf(ctx context.Context, index projections.Index, in PageInput, f MappingFilter) (*pageAnswer[Mapping], error) {
	if err := a.shows(ctx, in.MinPosition); err != nil {
		return nil, err
	}
	read := func(after int64, limit int) ([]projections.MappingRow, int64, error) {
		return a.config.Reader.Mappings(ctx, index, after, limit)
	}
	var rows []projections.MappingRow
	var next int64
	var err error
	if f == (MappingFilter{}) {
		rows, next, err = read(in.After, in.Limit)
	} else {
		rows, next, err = filtered(in.After, in.Limit, func(m projections.MappingRow) int64 { return m.ID }, read,
			func(page []projections.MappingRow) ([]projections.MappingRow, error) {
				return slices.DeleteFunc(page, func(m projections.MappingRow) bool { return !f.pass(&m) }), nil
			})
	}
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	public := a.public(ctx)
	return pageOf(rows, next, func(m projections.MappingRow) Mapping { return mappingBody(&m.Mapping, public) }), nil
}

func (a *api) getMapping(ctx context.Context, in *oneInput) (*struct {
	ReadAnswer
	Body Mapping
}, error) {
	m, err := a.mapping(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	answer, err := in.tagged(etag(m.Version))
	if err != nil {
		return nil, err
	}
	return &struct {
		ReadAnswer
		Body Mapping
	}{answer, a.mappingShown(ctx, &m.Mapping)}, nil
}

func (a *api) changeMapping(ctx context.Context, in *changeMappingInput) (*mappingAnswer, error) {
	b := in.Body
	if b.MappingID != nil && *b.MappingID != in.ID {
		return nil, invalid("body.mapping_id", fmt.Sprintf("cannot be changed, is %d", in.ID))
	}
	var err error
	if b.patch, err = b.patch.Sealed(a.seal(ctx, in.IdempotencyKey)); err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	identified := b
	if identified.patch, err = b.patch.Identified(in.IdempotencyKey); err != nil {
		return nil, a.refusal(ctx, err)
	}
	return a.mappingCommand(ctx, in.MatchHeader, identified, domain.ChangeMapping{ID: in.ID, By: a.asUser(ctx), Patch: b.patch})
}

// asUser gives the user who asks, 0 for an admin, to whom everything belongs.
func (a *api) asUser(ctx context.Context) int64 {
	if who := identity(ctx); !who.admin() {
		return who.UserID
	}
	return 0
}

func (a *api) setMappingEnabled(enabled bool) func(context.Context, *changeInput) (*mappingAnswer, error) {
	return func(ctx context.Context, in *changeInput) (*mappingAnswer, error) {
		return a.mappingCommand(ctx, in.MatchHeader, nil, domain.SetMappingEnabled{ID: in.ID, Enabled: enabled})
	}
}

func (a *api) deleteMapping(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.DeleteMapping{ID: in.ID})
}

func (a *api) mappingCommand(ctx context.Context, h MatchHeader, body any, c domain.Command) (*mappingAnswer, error) {
	r, err := a.submit(ctx, h, body, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	m, err := stateOf[*domain.Mapping](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &mappingAnswer{answerOf(r), a.mappingShown(ctx, m)}, nil
}

func mappingBody(m *domain.Mapping, public func(*domain.Mapping) public) Mapping {
	optional := func(id int64) *int64 {
		if id == 0 {
			return nil
		}
		return &id
	}
	now := public(m)
	return Mapping{MappingID: m.ID, UserID: m.UserID, Name: m.Name, SourceClientID: optional(m.SourceClientID), TargetClientID: m.TargetClientID, PublicAddress: now.address, PublicURL: now.url, Health: now.health,
		Protocol: Protocol(m.Protocol), Origin: m.Origin, Service: m.Service, Options: m.Options.Shown(m.Protocol),
		SourceUserID: optional(m.SourceUserID), TargetUserID: optional(m.TargetUserID), ShareID: optional(m.ShareID),
		Status: enabledStatus(m.Disabled), CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt}
}
