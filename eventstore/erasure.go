package eventstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Erase makes the personal data of an account unreadable, with those of the anonymous
// clients that the account has claimed. Its own key goes last, so that an erasure that
// was interrupted is found ([Personal.FinishErasures]).
func (p *Personal) Erase(ctx context.Context, account int64) error {
	claimed, err := p.claimedBy(ctx, account)
	if err != nil {
		return err
	}
	for _, each := range append(claimed, account) {
		if err := p.EraseDataKey(ctx, each); err != nil {
			return err
		}
		p.forget(each)
	}
	return nil
}

// claimedBy gives the anonymous clients that a user has claimed. They were accounts of
// their own before, with the name of the user's machine and its addresses.
func (p *Personal) claimedBy(ctx context.Context, user int64) (clients []int64, err error) {
	if domain.IsAnonymous(user) {
		return nil, nil
	}
	const page = 500
	q := domain.Query{Names: []string{domain.ClientClaimed{}.EventName()}}
	for {
		records, err := p.PersonalStore.Select(ctx, q, page)
		if err != nil {
			return nil, fmt.Errorf("find the clients that account %d has claimed: %w", user, err)
		}
		for _, r := range records {
			q.After = r.Position
			if e, err := r.Event(); err == nil && e.(domain.ClientClaimed).UserID == user && domain.IsAnonymous(r.Owner) {
				clients = append(clients, r.Owner)
			}
		}
		if len(records) < page {
			return clients, nil
		}
	}
}

// FinishErasures finishes erasures that were interrupted between their event and the
// deletion of the key, because the process was killed or the database went away. It
// gives the number of finished erasures.
func (p *Personal) FinishErasures(ctx context.Context) (finished int, err error) {
	const page = 500
	q := domain.Query{Names: []string{domain.UserErased{}.EventName()}}
	for {
		records, err := p.PersonalStore.Select(ctx, q, page)
		if err != nil {
			return finished, fmt.Errorf("find erasures: %w", err)
		}
		accounts := make([]int64, len(records))
		for i, r := range records {
			accounts[i], q.After = r.Owner, r.Position
		}
		kept, err := p.PersonalStore.DataKeys(ctx, accounts)
		if err != nil {
			return finished, fmt.Errorf("find keys of erased accounts: %w", err)
		}
		for account, key := range kept {
			if key == nil {
				continue
			}
			if err := p.Erase(ctx, account); err != nil {
				return finished, err
			}
			finished++
		}
		if len(records) < page {
			return finished, nil
		}
	}
}

// erases reports whether the personal data of the record's owner are erased with it:
// those of a user who is erased, and those of an anonymous client that is deleted, for
// whom nobody else could ask.
func erases(r *domain.Record) bool {
	return r.Name == domain.UserErased{}.EventName() ||
		r.Name == domain.ClientDeleted{}.EventName() && domain.IsAnonymous(r.Owner) && r.Stream == domain.ClientStream(r.Owner)
}

// finishErasures finishes erasures that were interrupted between their event and the
// deletion of the key. A log that is open for reading only keeps the key.
func (p *Personal) finishErasures(ctx context.Context, accounts []int64) {
	p.mu.Lock()
	accounts = slices.DeleteFunc(accounts, func(account int64) bool {
		k, ok := p.cache[account]
		return ok && k.aead == nil && time.Since(k.read) < keyCacheTime
	})
	p.mu.Unlock()
	if len(accounts) == 0 {
		return
	}
	kept, err := p.PersonalStore.DataKeys(ctx, accounts)
	if err != nil {
		return
	}
	for _, account := range accounts {
		if kept[account] == nil {
			p.forget(account)
		} else {
			_ = p.Erase(ctx, account) // it is tried again by who reads the record next
		}
	}
}

// forget notes that there is no key of an account.
func (p *Personal) forget(account int64) { p.remember(account, dataKey{read: time.Now()}) }
