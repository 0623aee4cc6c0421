package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of invitations: a row for each that can still be redeemed, or has
// expired; the list of all, and the list of each user's.

// AllInvites lists every live invitation.
const AllInvites Index = "invites"

// InvitesOfUser lists the live invitations that belong to a user.
func InvitesOfUser(userID int64) Index { return numbered("invites-of-user", userID) }

// InviteRow is the read model of an invitation.
type InviteRow struct {
	Versions
	domain.Invite
}

func (r *InviteRow) versions() *Versions { return &r.Versions }

func (r *InviteRow) fold(e domain.Event, at time.Time) { r.Invite.Apply(e, at) }

func (r *InviteRow) live() bool { return r.Invite.Live() }

func (r *InviteRow) indexes() []Index { return []Index{AllInvites, InvitesOfUser(r.UserID)} }

func (r *InviteRow) takesAlong() (Key, bool) { return Key{}, false }

// Invite gives a live invitation.
func (r *Reader) Invite(ctx context.Context, id int64) (row InviteRow, ok bool, err error) {
	return get[InviteRow](ctx, r, Key{Invites, id})
}

// Invites lists the invitations of an index, [AllInvites] or [InvitesOfUser], with an
// id above after; next is 0 at the end, otherwise the value for after.
func (r *Reader) Invites(ctx context.Context, index Index, after int64, limit int) (rows []InviteRow, next int64, err error) {
	return list[InviteRow](ctx, r.store, Invites, index, after, limit)
}
