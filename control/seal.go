package control

import (
	"context"
	"fmt"
	"runtime"

	"github.com/tunnox-net/tunnox/basicauth"
	"github.com/tunnox-net/tunnox/domain"
)

// newSealing bounds how many passwords are sealed at once: half of the cores stay for the
// rest.
func newSealing() chan struct{} { return make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) }

// seal makes of the passwords of visitors what may be kept. One password always becomes
// the same under one key, so that a command that is repeated is the same command.
func (s *state) seal(ctx context.Context, client int64, key string) domain.Seal {
	return domain.Seal{Password: func(username, password string) (string, error) {
		select {
		case s.sealing <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		defer func() { <-s.sealing }()
		salt := basicauth.NewSalt(fmt.Sprintf("client:%d", client), key, username)
		return basicauth.Derive(password, salt).Seal(salt), nil
	}}
}
