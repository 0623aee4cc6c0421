package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of clients: a row for each live client, the list of all, and
// the list of each user's.

// AllClients lists every live client.
const AllClients Index = "clients"

// ClientsOfUser lists the live clients that belong to a user.
func ClientsOfUser(userID int64) Index { return numbered("clients-of-user", userID) }

func (r *ClientRow) versions() *Versions { return &r.Versions }

func (r *ClientRow) fold(e domain.Event, at time.Time) { r.Client.Apply(e, at) }

// live keeps the row of a claimed client: its agent may have been away, and must be
// told the new client.
func (r *ClientRow) live() bool { return r.Client.Live() || r.ClaimedAs != 0 }

func (r *ClientRow) indexes() []Index {
	if !r.Client.Live() {
		return nil
	}
	if r.UserID == 0 {
		return []Index{AllClients}
	}
	return []Index{AllClients, ClientsOfUser(r.UserID)}
}

// takesAlong names the quota of an anonymous client, which is its own account.
func (r *ClientRow) takesAlong() (Key, bool) {
	return Key{Quotas, r.ID}, r.Kind == domain.ClientAnonymous && !r.Client.Live()
}

// Client gives a live client, or one that was claimed.
func (r *Reader) Client(ctx context.Context, id int64) (row ClientRow, ok bool, err error) {
	return get[ClientRow](ctx, r, Key{Clients, id})
}

// Clients lists the clients of an index, [AllClients] or [ClientsOfUser], with an id
// above after; next is 0 at the end, otherwise the value for after to get the next
// page.
func (r *Reader) Clients(ctx context.Context, index Index, after int64, limit int) (rows []ClientRow, next int64, err error) {
	return list[ClientRow](ctx, r.store, Clients, index, after, limit)
}
