package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of API keys: a row for each that was not revoked, the list of all, and
// the list of each user's; the operator is user 0. A key carries its id, so a lookup
// needs no index by secret.

// AllKeys lists every live key.
const AllKeys Index = "keys"

// KeysOfUser lists the live keys that belong to a user.
func KeysOfUser(userID int64) Index { return numbered("keys-of-user", userID) }

// KeyRow is the read model of an API key.
type KeyRow struct {
	Versions
	domain.Key
}

func (r *KeyRow) versions() *Versions { return &r.Versions }

func (r *KeyRow) fold(e domain.Event, at time.Time) { r.Key.Apply(e, at) }

func (r *KeyRow) live() bool { return r.Key.Live() }

func (r *KeyRow) indexes() []Index { return []Index{AllKeys, KeysOfUser(r.UserID)} }

func (r *KeyRow) takesAlong() (Key, bool) { return Key{}, false }

// Key gives a live API key.
func (r *Reader) Key(ctx context.Context, id int64) (row KeyRow, ok bool, err error) {
	return get[KeyRow](ctx, r, Key{APIKeys, id})
}

// Keys lists the API keys of an index, [AllKeys] or [KeysOfUser], with an id above
// after; next is 0 at the end, otherwise the value for after.
func (r *Reader) Keys(ctx context.Context, index Index, after int64, limit int) (rows []KeyRow, next int64, err error) {
	return list[KeyRow](ctx, r.store, APIKeys, index, after, limit)
}
