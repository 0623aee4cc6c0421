package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of domains of users' own: a row for each; the list of all, and the list
// of each user's.

// AllDomains lists every domain.
const AllDomains Index = "domains"

// DomainsOfUser lists the domains of a user.
func DomainsOfUser(userID int64) Index { return numbered("domains-of-user", userID) }

// DomainRow is the read model of a domain.
type DomainRow struct {
	Versions
	domain.Domain
}

func (r *DomainRow) versions() *Versions { return &r.Versions }

func (r *DomainRow) fold(e domain.Event, at time.Time) { r.Domain.Apply(e, at) }

func (r *DomainRow) live() bool { return r.Domain.Live() }

func (r *DomainRow) indexes() []Index { return []Index{AllDomains, DomainsOfUser(r.UserID)} }

func (r *DomainRow) takesAlong() (Key, bool) { return Key{}, false }

// Domain gives a domain that was not deleted.
func (r *Reader) Domain(ctx context.Context, id int64) (row DomainRow, ok bool, err error) {
	return get[DomainRow](ctx, r, Key{Domains, id})
}

// Domains lists the domains of an index, [AllDomains] or [DomainsOfUser], with an id
// above after; next is 0 at the end, otherwise the value for after.
func (r *Reader) Domains(ctx context.Context, index Index, after int64, limit int) (rows []DomainRow, next int64, err error) {
	return list[DomainRow](ctx, r.store, Domains, index, after, limit)
}
