package control

import (
	"container/list"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	foldPage    = 1000 // records read at a time
	foldStreams = 8192 // folded event streams kept
)

// Log is the log, as the State service reads it.
type Log interface {
	// ReadStream gives up to limit records of a stream with a version above after.
	ReadStream(ctx context.Context, stream domain.StreamID, after domain.Version, limit int) ([]domain.Record, error)
	// ReadAll gives up to limit records with a position above after, in order and
	// without holes.
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
}

// folds gives the present state of aggregates by folding their event streams. It caches
// the folds, so the next call reads only new records, and reads nothing while the log
// has not grown.
type folds struct {
	log Log

	mu     sync.Mutex
	byID   map[domain.StreamID]*list.Element // guarded by mu
	recent list.List                         // of *fold, the last used first; guarded by mu
}

// fold is a folded event stream. A state is never changed after it was set.
type fold struct {
	id domain.StreamID

	mu      sync.Mutex // held while the fold is brought up to date
	state   domain.Aggregate
	version domain.Version
	asOf    domain.Position // the log reached at least this position when it was read
}

func newFolds(log Log) *folds {
	return &folds{log: log, byID: map[domain.StreamID]*list.Element{}}
}

func (f *folds) entry(id domain.StreamID) *fold {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.byID[id]; e != nil {
		f.recent.MoveToFront(e)
		return e.Value.(*fold)
	}
	made := &fold{id: id, state: domain.NewAggregate(id)}
	f.byID[id] = f.recent.PushFront(made)
	if f.recent.Len() > foldStreams {
		oldest := f.recent.Remove(f.recent.Back()).(*fold)
		delete(f.byID, oldest.id)
	}
	return made
}

// at gives an aggregate as it is at position p of the log or later.
func (f *folds) at(ctx context.Context, id domain.StreamID, p domain.Position) (domain.Aggregate, domain.Version, error) {
	e := f.entry(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == nil {
		return nil, 0, fmt.Errorf("fold event stream %q: unknown category", id)
	}
	if e.version > 0 && e.asOf >= p {
		return e.state, e.version, nil
	}
	for {
		records, err := f.log.ReadStream(ctx, id, e.version, foldPage)
		if err != nil {
			return nil, 0, fmt.Errorf("read event stream %s: %w", id, err)
		}
		if len(records) > 0 {
			next := e.state.Clone()
			if err := domain.Fold(next, records); err != nil {
				return nil, 0, fmt.Errorf("fold event stream %s: %w", id, err)
			}
			e.state, e.version = next, records[len(records)-1].Version
		}
		if len(records) < foldPage {
			e.asOf = p
			return e.state, e.version, nil
		}
	}
}

// foldOf is at for one kind of aggregate.
func foldOf[A domain.Aggregate](ctx context.Context, f *folds, id domain.StreamID, p domain.Position) (state A, version domain.Version, err error) {
	any, version, err := f.at(ctx, id, p)
	if err != nil {
		return state, 0, err
	}
	state, ok := any.(A)
	if !ok {
		return state, 0, fmt.Errorf("event stream %s folds to a %T", id, any)
	}
	return state, version, nil
}

// view folds everything that is needed to serve a client from the log itself, as it is
// at position p. It needs no read model: the quotas know which mappings count against
// them, and every mapping of a client counts against its account.
func (f *folds) view(ctx context.Context, clientID int64, p domain.Position) (domain.ClientView, error) {
	client, version, err := foldOf[*domain.Client](ctx, f, domain.ClientStream(clientID), p)
	if err != nil {
		return domain.ClientView{}, err
	}
	if client.ClaimedAs != 0 { // its agent is told its new id
		return domain.ClientView{Position: p, Client: domain.Versioned[domain.Client]{Version: version, State: *client}}, nil
	}
	if !client.Live() {
		return domain.ClientView{}, noSuchClient()
	}
	v := domain.ClientView{Position: p, Client: domain.Versioned[domain.Client]{Version: version, State: *client}}
	users, accounts := map[int64]bool{}, map[int64]bool{client.AccountID(): true}
	if client.UserID != 0 {
		users[client.UserID] = true
	}
	quota, _, err := foldOf[*domain.Quota](ctx, f, domain.QuotaStream(client.AccountID()), p)
	if err != nil {
		return domain.ClientView{}, err
	}
	for _, id := range slices.Sorted(maps.Keys(quota.Mappings)) {
		if !slices.Contains(quota.Mappings[id].Ends(), clientID) {
			continue
		}
		m, version, err := foldOf[*domain.Mapping](ctx, f, domain.MappingStream(id), p)
		if err != nil {
			return domain.ClientView{}, err
		}
		if !m.Live() {
			continue // deleted after the quota was read
		}
		v.Mappings = append(v.Mappings, domain.Versioned[domain.Mapping]{Version: version, State: *m})
		users[m.UserID] = true
		for _, account := range m.Accounts() {
			accounts[account] = true
		}
	}
	v.Users, v.Limits, err = f.accounts(ctx, users, accounts, p)
	return v, err
}

// accounts folds the users and the limits that a view needs.
func (f *folds) accounts(ctx context.Context, ofUsers, ofAccounts map[int64]bool, p domain.Position) (
	users []domain.Versioned[domain.User], limits []domain.Versioned[domain.AccountLimits], err error) {
	for _, id := range slices.Sorted(maps.Keys(ofUsers)) {
		u, version, err := foldOf[*domain.User](ctx, f, domain.UserStream(id), p)
		if err != nil {
			return nil, nil, err
		}
		if u.Live() {
			users = append(users, domain.Versioned[domain.User]{Version: version, State: *u})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ofAccounts)) {
		q, version, err := foldOf[*domain.Quota](ctx, f, domain.QuotaStream(id), p)
		if err != nil {
			return nil, nil, err
		}
		if q.Exists() {
			limits = append(limits, domain.Versioned[domain.AccountLimits]{Version: version,
				State: domain.AccountLimits{Account: id, Limits: q.Limits}})
		}
	}
	return users, limits, nil
}

func noSuchClient() error {
	return &domain.Error{Code: domain.CodeClientNotFound, Message: "There is no such client."}
}
