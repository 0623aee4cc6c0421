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
	r, err := a.submit(ctx, in.MatchHeader, nil, domain.EraseUser{ID: in.ID})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	if err := a.config.Eraser.Erase(ctx, in.ID); err != nil {
		return nil, a.refusal(ctx, err)
	}
	a.forgetSessions(ctx, r)
	answer := answerOf(r)
	return &answer, nil
}

// forgetSessions ends the sessions of clients that were deleted, also those of nodes that
// are gone: the directory has the addresses of their agents.
func (a *api) forgetSessions(ctx context.Context, r domain.Receipt) {
	if a.config.Nodes == nil {
		return
	}
	for _, record := range r.Records {
		if record.Name != (domain.ClientDeleted{}).EventName() {
			continue
		}
		if _, err := a.config.Nodes.Disconnect(ctx, record.Stream.Number()); err != nil {
			a.logger.WarnContext(ctx, "the directory cannot forget the sessions of a client that was erased", "client", record.Stream.Number(), "error", err)
			return
		}
	}
}
