package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of shares: a row for each that may still be redeemed, or has
// expired; the list of all, and the list of each user's.

// AllShares lists every live share.
const AllShares Index = "shares"

// SharesOfUser lists the live shares that belong to a user.
func SharesOfUser(userID int64) Index { return numbered("shares-of-user", userID) }

// SharesHeld lists the live shares that end with somebody's agent.
const SharesHeld Index = "shares-held"

// ShareRow is the read model of a share.
type ShareRow struct {
	Versions
	domain.Share
}

func (r *ShareRow) versions() *Versions { return &r.Versions }

func (r *ShareRow) fold(e domain.Event, at time.Time) { r.Share.Apply(e, at) }

func (r *ShareRow) live() bool { return r.Share.Live() }

func (r *ShareRow) indexes() []Index {
	all := []Index{AllShares, SharesOfUser(r.UserID)}
	if r.HeldBy != "" {
		all = append(all, SharesHeld)
	}
	return all
}

func (r *ShareRow) takesAlong() (Key, bool) { return Key{}, false }

// Share gives a live share.
func (r *Reader) Share(ctx context.Context, id int64) (row ShareRow, ok bool, err error) {
	return get[ShareRow](ctx, r, Key{Shares, id})
}

// Shares lists the shares of an index, [AllShares], [SharesOfUser] or
// [SharesHeld], with an id
// above after; next is 0 at the end, else what to pass as after.
func (r *Reader) Shares(ctx context.Context, index Index, after int64, limit int) (rows []ShareRow, next int64, err error) {
	return list[ShareRow](ctx, r.store, Shares, index, after, limit)
}
