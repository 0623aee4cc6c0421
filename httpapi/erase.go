package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Eraser forgets what is about the person of an account; to do it again is no
// error.
type Eraser interface {
	Erase(ctx context.Context, account int64) error
}

func (a *api) registerErasure() {
	huma.Register(a.huma, operation(http.MethodPost, "/users/{id}/erase", "erase-user", "users",
		"Delete a user and forget what is about the person, also of one that was deleted before", errorsOfWrite...), a.eraseUser)
}

// eraseUser deletes a user that is there. Of one that was deleted before, the
// event stream has ended and takes no event, and only the key goes.
func (a *api) eraseUser(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	if a.config.Eraser == nil {
		return nil, problem(http.StatusServiceUnavailable, domain.CodeStoreUnavailable, "This server keeps no keys of personal data.")
	}
	answer, err := a.end(ctx, in, domain.EraseUser{ID: in.ID})
	if err == nil {
		return answer, nil
	}
	if p, ok := err.(*Problem); !ok || p.Code != string(domain.CodeUserNotFound) {
		return nil, err
	}
	records, readErr := a.config.History.ReadStream(ctx, domain.UserStream(in.ID), 0, 1)
	if readErr != nil {
		return nil, a.unreadable(ctx, readErr)
	}
	if len(records) == 0 {
		return nil, err
	}
	if err := a.config.Eraser.Erase(ctx, in.ID); err != nil {
		return nil, a.refusal(ctx, err)
	}
	t := tracked(ctx)
	a.logger.InfoContext(ctx, "erased what was about a deleted user", "user", in.ID, "actor", t.identity.Actor, "request", t.id)
	return &WriteAnswer{}, nil
}
