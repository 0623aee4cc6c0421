package projections

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of users: a row for each live user, the list of all, and
// who has a name.

// AllUsers lists every live user.
const AllUsers Index = "users"

func (r *UserRow) versions() *Versions { return &r.Versions }

func (r *UserRow) fold(e domain.Event, at time.Time) {
	r.User.Apply(e, at)
	switch e := e.(type) {
	case domain.UserPasswordSet:
		r.HasPassword = e.Hash != ""
	case domain.UserErased:
		r.HasPassword = false
	}
}

// MarshalJSON leaves the hash of the password out: no row holds one. Who checks a
// password reads it from the log.
func (r UserRow) MarshalJSON() ([]byte, error) {
	type kept UserRow
	k := kept(r)
	k.PasswordHash = ""
	return json.Marshal(k)
}

func (r *UserRow) live() bool { return r.User.Live() }

func (r *UserRow) indexes() []Index { return []Index{AllUsers, userNamed(r.Username)} }

// userNamed holds the one user of a name, which is unique without regard to case.
func userNamed(name string) Index { return Index("user-named:" + strings.ToLower(name)) }

// takesAlong names the quota: its event stream is closed with the user's, and
// no event of its own ends it.
func (r *UserRow) takesAlong() (Key, bool) { return Key{Quotas, r.ID}, !r.User.Live() }

// User gives a live user.
func (r *Reader) User(ctx context.Context, id int64) (row UserRow, ok bool, err error) {
	return get[UserRow](ctx, r, Key{Users, id})
}

// UserNamed gives the live user of a name.
func (r *Reader) UserNamed(ctx context.Context, name string) (row UserRow, ok bool, err error) {
	rows, _, err := list[UserRow](ctx, r.store, Users, userNamed(name), 0, 1)
	if err != nil || len(rows) == 0 {
		return row, false, err
	}
	if r.streams == nil {
		return rows[0], true, nil
	}
	row, ok, err = r.User(ctx, rows[0].ID)
	if err != nil || !ok || !strings.EqualFold(row.Username, name) {
		return UserRow{}, false, err
	}
	return row, true, nil
}

// Users lists all live users with an id above after; next is 0 at the end,
// else what to pass as after for the next page.
func (r *Reader) Users(ctx context.Context, after int64, limit int) (rows []UserRow, next int64, err error) {
	return list[UserRow](ctx, r.store, Users, AllUsers, after, limit)
}
