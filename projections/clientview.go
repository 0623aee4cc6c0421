package projections

import (
	"context"
	"maps"
	"slices"

	"github.com/tunnox-net/tunnox/domain"
)

// viewPage is how many mappings of a client are read at a time.
const viewPage = 1000

// ClientView gives all a forwarder must know to serve a client, not older than
// min. A client that is not there is a *[domain.Error] of code
// [domain.CodeClientNotFound].
//
// The parts are read one after the other while the read models move on. That is
// safe, because the position is read first: whatever is newer than it comes
// with its own version, and the feed's records up to that version are skipped
// by it.
func (r *Reader) ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	if err := r.Wait(ctx, min); err != nil {
		return domain.ClientView{}, err
	}
	position, err := r.Position(ctx)
	if err != nil {
		return domain.ClientView{}, err
	}
	client, ok, err := r.Client(ctx, clientID)
	if err != nil {
		return domain.ClientView{}, err
	}
	if !ok {
		return domain.ClientView{}, &domain.Error{Code: domain.CodeClientNotFound, Message: "There is no such client."}
	}
	v := domain.ClientView{Position: position,
		Client: domain.Versioned[domain.Client]{Version: client.Version, State: client.Client}}
	users, accounts := map[int64]bool{}, map[int64]bool{client.AccountID(): true}
	if client.UserID != 0 {
		users[client.UserID] = true
	}
	for after, more := int64(0), true; more; more = after != 0 {
		var page []MappingRow
		page, after, err = r.Mappings(ctx, MappingsOfClient(clientID), after, viewPage)
		if err != nil {
			return domain.ClientView{}, err
		}
		for _, m := range page {
			v.Mappings = append(v.Mappings, domain.Versioned[domain.Mapping]{Version: m.Version, State: m.Mapping})
			users[m.UserID] = true
			for _, account := range m.Accounts() {
				accounts[account] = true
			}
		}
	}
	return v, r.addAccounts(ctx, &v, slices.Sorted(maps.Keys(users)), slices.Sorted(maps.Keys(accounts)))
}

func (r *Reader) addAccounts(ctx context.Context, v *domain.ClientView, users, accounts []int64) error {
	keys := make([]Key, 0, len(users)+len(accounts))
	for _, id := range users {
		keys = append(keys, Key{Users, id})
	}
	for _, id := range accounts {
		keys = append(keys, Key{Quotas, id})
	}
	values, err := r.store.Get(ctx, keys...)
	if err != nil {
		return err
	}
	for i, value := range values {
		switch {
		case value == nil: // deleted since its mapping was read; the feed will say so
		case keys[i].Kind == Users:
			u, err := decodeRow[UserRow](keys[i], value)
			if err != nil {
				return err
			}
			v.Users = append(v.Users, domain.Versioned[domain.User]{Version: u.Version, State: u.User})
		default:
			q, err := decodeRow[QuotaRow](keys[i], value)
			if err != nil {
				return err
			}
			v.Limits = append(v.Limits, domain.Versioned[domain.AccountLimits]{Version: q.Version,
				State: domain.AccountLimits{Account: q.Account, Limits: q.Limits}})
		}
	}
	return nil
}
