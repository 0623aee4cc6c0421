package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Eraser erases the personal data of an account. A repeat is not an error.
type Eraser interface {
	Erase(ctx context.Context, account int64) error
}

func (a *api) registerErasure() {
	huma.Register(a.huma, operation(http.MethodPost, "/users/{id}/erase", "erase-user", "users",
		"Delete a user and forget what is about the person, also of one that was deleted before", errorsOfWrite...), a.eraseUser)
}

// eraseUser writes the event and erases the personal data. The store erases them with
// the event. The second call completes an erasure that was cut short in between, and
// changes nothing otherwise.
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
