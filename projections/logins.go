package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of logins: a row for each that has not ended, and the list of all, in
// which expired logins are found.

// AllLogins lists every login that has not ended.
const AllLogins Index = "logins"

// LoginRow is the read model of a login.
type LoginRow struct {
	Versions
	domain.Login
}

func (r *LoginRow) versions() *Versions { return &r.Versions }

func (r *LoginRow) fold(e domain.Event, at time.Time) { r.Login.Apply(e, at) }

func (r *LoginRow) live() bool { return r.Login.Live() }

func (r *LoginRow) indexes() []Index { return []Index{AllLogins} }

func (r *LoginRow) takesAlong() (Key, bool) { return Key{}, false }

// Login gives a login that has not ended.
func (r *Reader) Login(ctx context.Context, id int64) (row LoginRow, ok bool, err error) {
	return get[LoginRow](ctx, r, Key{Logins, id})
}

// Logins lists the logins that have not ended, with an id above after; next is 0 at the
// end, otherwise the value for after.
func (r *Reader) Logins(ctx context.Context, after int64, limit int) (rows []LoginRow, next int64, err error) {
	return list[LoginRow](ctx, r.store, Logins, AllLogins, after, limit)
}
