package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of quotas: a row for each account. It counts instead of folding a
// [domain.Quota], whose size grows with the account's resources. The counts are the
// same, because only resources that were counted are ever returned.

func (r *QuotaRow) versions() *Versions { return &r.Versions }

func (r *QuotaRow) fold(event domain.Event, at time.Time) {
	switch e := event.(type) {
	case domain.QuotaSet:
		r.Account, r.Limits = e.Account, e.Limits
	case domain.QuotaTaken:
		r.count(e.Resources, 1)
	case domain.QuotaReturned:
		r.count(e.Resources, -1)
	case domain.QuotaMoved: // the counts stay
	default:
		return
	}
	r.UpdatedAt = at
}

func (r *QuotaRow) count(resources []domain.Resource, n int64) {
	for _, resource := range resources {
		switch resource {
		case domain.ResourceClient:
			r.Clients += n
		case domain.ResourceMapping:
			r.Mappings += n
		case domain.ResourceActiveMapping:
			r.ActiveMappings += n
		}
	}
}

func (r *QuotaRow) live() bool { return r.Account != 0 }

func (r *QuotaRow) indexes() []Index { return nil }

func (r *QuotaRow) takesAlong() (Key, bool) { return Key{}, false }

// Quota gives the limits of a live account and how much of them is in use.
func (r *Reader) Quota(ctx context.Context, account int64) (row QuotaRow, ok bool, err error) {
	return get[QuotaRow](ctx, r, Key{Quotas, account})
}

// Quotas gives the rows of several accounts at once, in order; missing ones are left
// out.
func (r *Reader) Quotas(ctx context.Context, accounts ...int64) ([]QuotaRow, error) {
	return getAll[QuotaRow](ctx, r.store, Quotas, accounts)
}
