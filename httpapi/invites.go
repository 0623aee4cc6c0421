package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Invite is an invitation in the API. Its code is shown only at its creation.
type Invite struct {
	InviteID  int64      `json:"invite_id" example:"1234567890123"`
	UserID    int64      `json:"user_id" doc:"The inviting user: the machines become clients of this user" example:"100000001"`
	Name      string     `json:"name" example:"laptops"`
	MaxUses   int64      `json:"max_uses" example:"1"`
	Uses      int64      `json:"uses" doc:"The number of machines that have joined" example:"0"`
	ExpiresAt *time.Time `json:"expires_at" doc:"null = never" example:"2027-01-02T15:04:05Z"`
	CreatedAt time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt time.Time  `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// NewInvite is an invitation with its code, shown this once.
type NewInvite struct {
	Invite
	Code string `json:"code,omitempty" doc:"The code for tunnox join on the new machine. It is shown once and not stored" example:"tnxj_AAAA"`
}

// CreateInviteBody is the body of POST /invites.
type CreateInviteBody struct {
	UserID    int64  `json:"user_id,omitempty" doc:"The inviting user. Default: the caller" example:"100000001"`
	Name      string `json:"name,omitempty" maxLength:"100" doc:"A name for people. A client that joins without a name gets it too" example:"laptops"`
	Uses      int64  `json:"uses,omitempty" minimum:"1" maximum:"1000" default:"1" doc:"The number of machines that may join" example:"1"`
	ExpiresIn int64  `json:"expires_in,omitempty" minimum:"1" maximum:"31536000" default:"604800" doc:"The lifetime in seconds" example:"604800"`
}

// JoinCode makes the code of an invitation from its id and secret. The process knows the
// addresses for agents and the fingerprint of the server. An error means that no
// forwarder runs now.
type JoinCode func(ctx context.Context, id int64, secret []byte) (string, error)

func (a *api) registerInvites() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/invites"+path, id, "invites", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-invite", "Invite machines to become clients; the code is shown this once", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createInvite)
	huma.Register(a.huma, op(http.MethodGet, "", "list-invites", "List invitations that are not used up", errorsOfList...), a.listInvites)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-invite", "Show an invitation", errorsOfGet...)), a.getInvite)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "revoke-invite", "Revoke an invitation; clients that were made of it stay", errorsOfWrite...), a.revokeInvite)
}

func (a *api) createInvite(ctx context.Context, in *struct {
	KeyHeader
	Body CreateInviteBody
}) (*struct {
	CreatedAnswer
	Body NewInvite
}, error) {
	b := in.Body
	user, err := forUser(ctx, b.UserID)
	if err != nil {
		return nil, err
	}
	now := a.now()
	secret := drawBytes(domain.InviteSecretLength)
	if _, err := a.joinCode(ctx, 1, secret); err != nil { // before anything is written
		return nil, a.refusal(ctx, err)
	}
	c := domain.CreateInvite{UserID: user, Name: b.Name, MaxUses: b.Uses, At: now,
		ExpiresAt: now.Add(time.Duration(b.ExpiresIn) * time.Second).UTC().Truncate(time.Second)}
	r, err := a.createWith(ctx, in.KeyHeader, b, func(context.Context) (int64, error) { return drawTimedID(now), nil },
		func(id int64) domain.Command {
			c.ID, c.Hash = id, domain.HashInvite(id, secret)
			return c
		})
	if err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	i, err := made[*domain.Invite](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := NewInvite{Invite: inviteBody(i)}
	if !r.Duplicate {
		if body.Code, err = a.joinCode(ctx, i.ID, secret); err != nil {
			return nil, a.refusal(ctx, err)
		}
	}
	return &struct {
		CreatedAnswer
		Body NewInvite
	}{createdOf(r, "invites"), body}, nil
}

// codeNoServer is the refusal of an invitation while no forwarder runs.
const codeNoServer domain.Code = "no_forwarder"

func (a *api) joinCode(ctx context.Context, id int64, secret []byte) (string, error) {
	refused := problem(http.StatusConflict, codeNoServer, "No forwarder runs that a machine could join. Start one and try again.")
	if a.config.JoinCode == nil {
		return "", refused
	}
	code, err := a.config.JoinCode(ctx, id, secret)
	if err != nil {
		a.logger.WarnContext(ctx, "making an invitation's code", "error", err)
		return "", refused
	}
	return code, nil
}

func (a *api) listInvites(ctx context.Context, in *ownedInput) (*pageAnswer[Invite], error) {
	return listOwned(ctx, a, in, projections.AllInvites, projections.InvitesOfUser, a.config.Reader.Invites,
		func(r projections.InviteRow) Invite { return inviteBody(&r.Invite) })
}

func (a *api) getInvite(ctx context.Context, in *oneInput) (*oneAnswer[Invite], error) {
	row, err := a.invite(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	return answerOne(in, etag(row.Version), inviteBody(&row.Invite))
}

func (a *api) revokeInvite(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.RevokeInvite{ID: in.ID})
}

func inviteBody(i *domain.Invite) Invite {
	b := Invite{InviteID: i.ID, UserID: i.UserID, Name: i.Name, MaxUses: i.MaxUses, Uses: i.Uses(), CreatedAt: i.CreatedAt, UpdatedAt: i.UpdatedAt}
	if !i.ExpiresAt.IsZero() {
		b.ExpiresAt = &i.ExpiresAt
	}
	return b
}

func (a *api) invite(ctx context.Context, id int64, min domain.Position) (projections.InviteRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.InviteRow, bool, error) { return a.config.Reader.Invite(ctx, id) },
		func(ctx context.Context) (projections.InviteRow, bool, error) {
			state, at, err := a.fold(ctx, domain.InviteStream(id))
			if i, ok := state.(*domain.Invite); ok && err == nil {
				return projections.InviteRow{Versions: at, Invite: *i}, true, nil
			}
			return projections.InviteRow{}, false, err
		})
	if err == nil && (!found || !row.Live()) {
		err = noInvite()
	}
	return row, err
}

func noInvite() error { return notFound(domain.CodeInviteNotFound, "There is no such invitation.") }
