package httpapi

import (
	"context"
	"encoding/base32"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Share is a share as the API shows it. Its code is never shown again.
type Share struct {
	ShareID        int64    `json:"share_id" example:"1234567890123"`
	UserID         int64    `json:"user_id" doc:"The sharing user, who owns the mappings of the share" example:"100000001"`
	Name           string   `json:"name" example:"our database"`
	TargetClientID int64    `json:"target_client_id" example:"600000001"`
	Protocol       Protocol `json:"protocol" example:"tcp"`
	domain.Service
	domain.Options
	MaxUses   int64      `json:"max_uses" example:"1"`
	Uses      int64      `json:"uses" doc:"The number of uses so far" example:"0"`
	ExpiresAt *time.Time `json:"expires_at" doc:"null = never" example:"2027-01-02T15:04:05Z"`
	CreatedAt time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt time.Time  `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// NewShare is a share with its code, shown this once.
type NewShare struct {
	Share
	Code string `json:"code,omitempty" doc:"The code for the user who redeems it. It is shown once and not stored" example:"1234567890123-ABCDE-FGHIJ-KLMNO-PQRST"`
}

// CreateShareBody is the body of POST /shares.
type CreateShareBody struct {
	UserID         int64    `json:"user_id,omitempty" doc:"The sharing user. Default: the caller" example:"100000001"`
	Name           string   `json:"name,omitempty" maxLength:"100" example:"our database"`
	TargetClientID int64    `json:"target_client_id" doc:"A client of the user that dials the service" example:"600000001"`
	Protocol       Protocol `json:"protocol" example:"tcp"`
	domain.Service
	domain.Options
	MaxUses   int64      `json:"max_uses,omitempty" minimum:"1" maximum:"1000" default:"1" example:"1"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Default, and null: never" example:"2027-01-02T15:04:05Z"`
}

// RedeemBody is the body of POST /shares/redeem.
type RedeemBody struct {
	Code           string `json:"code" minLength:"1" maxLength:"100" example:"1234567890123-ABCDE-FGHIJ-KLMNO-PQRST"`
	SourceClientID int64  `json:"source_client_id" doc:"The client of yours that listens" example:"600000000"`
	Name           string `json:"name,omitempty" maxLength:"100" doc:"Default: the name of the share" example:"our database"`
	domain.Origin
}

func (a *api) registerShares() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/shares"+path, id, "shares", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-share", "Share a service behind a client; the code is shown this once", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createShare)
	huma.Register(a.huma, op(http.MethodGet, "", "list-shares", "List shares that can still be redeemed", errorsOfList...), a.listShares)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-share", "Show a share", errorsOfGet...)), a.getShare)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "revoke-share", "Revoke a share; mappings that were made of it stay", errorsOfWrite...), a.revokeShare)
	redeemed := op(http.MethodPost, "/redeem", "redeem-share", "Make a mapping of a share code, from a client of yours", errorsOfPost...)
	redeemed.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, redeemed, a.redeemShare)
}

func drawCode() string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(drawBytes(13))[:domain.ShareCodeLength]
}

func (a *api) createShare(ctx context.Context, in *struct {
	KeyHeader
	Body CreateShareBody
}) (*struct {
	CreatedAnswer
	Body NewShare
}, error) {
	b := in.Body
	user, err := forUser(ctx, b.UserID)
	if err != nil {
		return nil, err
	}
	c := domain.CreateShare{UserID: user, Name: b.Name, TargetClientID: b.TargetClientID, Protocol: domain.Protocol(b.Protocol),
		Service: b.Service, Options: b.Options, MaxUses: b.MaxUses, At: a.now()}
	if b.ExpiresAt != nil {
		c.ExpiresAt = b.ExpiresAt.UTC().Truncate(time.Second)
	}
	random := drawCode()
	identified := b
	if identified.Options, err = b.Options.Identified(in.IdempotencyKey); err != nil {
		return nil, a.refusal(ctx, err)
	}
	r, err := a.createWith(ctx, in.KeyHeader, identified, func(context.Context) (int64, error) { return drawTimedID(a.now()), nil },
		func(id int64) domain.Command {
			c.ID, c.Hash = id, domain.HashShareCode(id, random)
			return c
		})
	if err != nil {
		return nil, a.refusal(ctx, a.hidden(ctx, inBody(err)))
	}
	h, err := made[*domain.Share](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := NewShare{Share: shareBody(h)}
	if !r.Duplicate {
		body.Code = domain.ShareCode(h.ID, random)
	}
	return &struct {
		CreatedAnswer
		Body NewShare
	}{createdOf(r, "shares"), body}, nil
}

func (a *api) redeemShare(ctx context.Context, in *struct {
	KeyHeader
	Body RedeemBody
}) (*struct {
	CreatedAnswer
	Body Mapping
}, error) {
	b, who := in.Body, identity(ctx)
	id, hash, ok := domain.ParseShareCode(b.Code)
	if !ok {
		return nil, a.refusal(ctx, &domain.Error{Code: domain.CodeShareNotFound, Message: "There is no share with this code.",
			Faults: []domain.Fault{{Field: "code", Message: "is no share code"}}})
	}
	r, err := a.create(ctx, in.KeyHeader, b, domain.SequenceMapping, func(mapping int64) domain.Command {
		return domain.RedeemShare{ID: id, Hash: hash, MappingID: mapping, RedeemerID: who.UserID, Any: who.admin(),
			SourceClientID: b.SourceClientID, Name: b.Name, Origin: b.Origin, At: a.now()}
	})
	if err != nil {
		return nil, a.refusal(ctx, a.hidden(ctx, err))
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

func (a *api) listShares(ctx context.Context, in *ownedInput) (*pageAnswer[Share], error) {
	return listOwned(ctx, a, in, projections.AllShares, projections.SharesOfUser, a.config.Reader.Shares,
		func(r projections.ShareRow) Share { return shareBody(&r.Share) })
}

func (a *api) getShare(ctx context.Context, in *oneInput) (*oneAnswer[Share], error) {
	row, err := a.share(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	return answerOne(in, etag(row.Version), shareBody(&row.Share))
}

func (a *api) revokeShare(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.RevokeShare{ID: in.ID})
}

func shareBody(h *domain.Share) Share {
	b := Share{ShareID: h.ID, UserID: h.UserID, Name: h.Name, TargetClientID: h.TargetClientID, Protocol: Protocol(h.Protocol),
		Service: h.Service, Options: h.Options.Shown(h.Protocol), MaxUses: h.MaxUses, Uses: h.Uses, CreatedAt: h.CreatedAt, UpdatedAt: h.UpdatedAt}
	if !h.ExpiresAt.IsZero() {
		b.ExpiresAt = &h.ExpiresAt
	}
	return b
}

func (a *api) share(ctx context.Context, id int64, min domain.Position) (projections.ShareRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.ShareRow, bool, error) { return a.config.Reader.Share(ctx, id) },
		func(ctx context.Context) (projections.ShareRow, bool, error) {
			state, at, err := a.fold(ctx, domain.ShareStream(id))
			if h, ok := state.(*domain.Share); ok && err == nil {
				return projections.ShareRow{Versions: at, Share: *h}, true, nil
			}
			return projections.ShareRow{}, false, err
		})
	if err == nil && (!found || !row.Share.Live()) {
		err = noShare()
	}
	return row, err
}

func noShare() error { return notFound(domain.CodeShareNotFound, "There is no such share.") }
