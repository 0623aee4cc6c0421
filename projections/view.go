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
	of := behind{users: map[int64]bool{}, accounts: map[int64]bool{client.AccountID(): true}}
	if client.UserID != 0 {
		of.users[client.UserID] = true
	}
	v.Mappings, err = r.viewMappings(ctx, MappingsOfClient(clientID), func(*domain.Mapping) bool { return true }, of)
	if err != nil {
		return domain.ClientView{}, err
	}
	v.Users, v.Limits, err = r.accounts(ctx, of)
	return v, err
}

// IngressView gives all a forwarder must know to serve what comes in at an ingress,
// not older than min. It is read as a client's is.
func (r *Reader) IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	if err := r.Wait(ctx, min); err != nil {
		return domain.IngressView{}, err
	}
	position, err := r.Position(ctx)
	if err != nil {
		return domain.IngressView{}, err
	}
	v := domain.IngressView{Position: position, Ingress: what}
	of := behind{users: map[int64]bool{}, accounts: map[int64]bool{}}
	index := MappingsWithPort
	if what.Host != "" {
		index = MappingsOfHost(what.Host)
	}
	if v.Mappings, err = r.viewMappings(ctx, index, what.Has, of); err != nil {
		return domain.IngressView{}, err
	}
	v.Users, v.Limits, err = r.accounts(ctx, of)
	return v, err
}

// behind are the users and accounts behind the mappings of a view.
type behind struct{ users, accounts map[int64]bool }

// viewMappings gives those mappings of an index that the view wants, and notes who is
// behind them.
func (r *Reader) viewMappings(ctx context.Context, index Index, wants func(*domain.Mapping) bool, of behind) (all []domain.Versioned[domain.Mapping], err error) {
	for after, more := int64(0), true; more; more = after != 0 {
		var page []MappingRow
		if page, after, err = r.Mappings(ctx, index, after, viewPage); err != nil {
			return nil, err
		}
		for _, m := range page {
			if !wants(&m.Mapping) {
				continue
			}
			all = append(all, domain.Versioned[domain.Mapping]{Version: m.Version, State: m.Mapping})
			of.users[m.UserID] = true
			for _, account := range m.Accounts() {
				of.accounts[account] = true
			}
		}
	}
	return all, nil
}

// accounts gives the users and the limits behind a view.
func (r *Reader) accounts(ctx context.Context, of behind) (users []domain.Versioned[domain.User], limits []domain.Versioned[domain.AccountLimits], err error) {
	keys := make([]Key, 0, len(of.users)+len(of.accounts))
	for _, id := range slices.Sorted(maps.Keys(of.users)) {
		keys = append(keys, Key{Users, id})
	}
	for _, id := range slices.Sorted(maps.Keys(of.accounts)) {
		keys = append(keys, Key{Quotas, id})
	}
	if len(keys) == 0 {
		return nil, nil, nil
	}
	values, err := r.store.Get(ctx, keys...)
	if err != nil {
		return nil, nil, err
	}
	for i, value := range values {
		switch {
		case value == nil: // deleted since its mapping was read; the feed will say so
		case keys[i].Kind == Users:
			u, err := decodeRow[UserRow](keys[i], value)
			if err != nil {
				return nil, nil, err
			}
			users = append(users, domain.Versioned[domain.User]{Version: u.Version, State: u.User})
		default:
			q, err := decodeRow[QuotaRow](keys[i], value)
			if err != nil {
				return nil, nil, err
			}
			limits = append(limits, domain.Versioned[domain.AccountLimits]{Version: q.Version,
				State: domain.AccountLimits{Account: q.Account, Limits: q.Limits}})
		}
	}
	return users, limits, nil
}
