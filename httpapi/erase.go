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

// eraseUser writes that a user is erased, and has what was about the person
// forgotten. The store does that with the event; asking once more completes one
// that was cut short between the two, and changes nothing otherwise.
func (a *api) eraseUser(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	if a.config.Eraser == nil {
		return nil, problem(http.StatusServiceUnavailable, domain.CodeStoreUnavailable, "This server keeps no keys of personal data.")
	}
	answer, err := a.end(ctx, in, domain.EraseUser{ID: in.ID})
	if err != nil {
		return nil, err
	}
	if err := a.config.Eraser.Erase(ctx, in.ID); err != nil {
		return nil, a.refusal(ctx, err)
	}
	return answer, nil
}
