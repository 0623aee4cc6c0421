package httpapi

import (
	"context"

	"github.com/tunnox-net/tunnox/basicauth"
	"github.com/tunnox-net/tunnox/domain"
)

// seal makes of the passwords of visitors what may be kept. Under an idempotency key one
// password always becomes the same, so that a repeat is the same request, and the log's
// hash of the request is no cheaper way to guess the password than what is kept of it.
func (a *api) seal(ctx context.Context, key string) domain.Seal {
	return domain.Seal{Secret: a.config.SealSecret, Password: func(username, password string) (string, error) {
		salt := basicauth.NewSalt()
		if key != "" {
			salt = basicauth.NewSalt(identity(ctx).Actor, key, username)
		}
		done, err := a.passwords.turns.take(ctx, a.passwords.who)
		if err != nil {
			return "", err
		}
		defer done()
		return basicauth.Derive(password, salt).Seal(salt), nil
	}}
}
