package projectionstest

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Model is what must be read at a position: the fold of the log's streams, by
// the domain alone.
type Model struct {
	Position domain.Position
	Users    map[int64]projections.UserRow
	Clients  map[int64]projections.ClientRow
	Mappings map[int64]projections.MappingRow
	Quotas   map[int64]projections.QuotaRow
	Keys     map[int64]projections.KeyRow
	Logins   map[int64]projections.LoginRow
	Shares   map[int64]projections.ShareRow
	Webhooks map[int64]projections.WebhookRow
	Invites  map[int64]projections.InviteRow
	Domains  map[int64]projections.DomainRow
}

// NewModel folds the log up to a position.
func NewModel(log *Log, to domain.Position) (*Model, error) {
	m := &Model{Position: to, Users: map[int64]projections.UserRow{}, Clients: map[int64]projections.ClientRow{},
		Mappings: map[int64]projections.MappingRow{}, Quotas: map[int64]projections.QuotaRow{},
		Keys: map[int64]projections.KeyRow{}, Logins: map[int64]projections.LoginRow{}, Shares: map[int64]projections.ShareRow{}, Webhooks: map[int64]projections.WebhookRow{}, Invites: map[int64]projections.InviteRow{}, Domains: map[int64]projections.DomainRow{}}
	states, stands := domain.States{}, map[domain.StreamID]projections.Versions{}
	last := map[domain.StreamID]domain.Record{}
	for _, r := range log.Records(to) {
		if states[r.Stream] == nil {
			states[r.Stream] = domain.NewAggregate(r.Stream)
		}
		if err := domain.Fold(states[r.Stream], []domain.Record{r}); err != nil {
			return nil, err
		}
		stands[r.Stream] = projections.Versions{Version: r.Version, Position: r.Position}
		last[r.Stream] = r
	}
	for id, state := range states {
		switch a := state.(type) {
		case *domain.User:
			if a.Live() {
				row := projections.UserRow{Versions: stands[id], User: *a, HasPassword: a.PasswordHash != ""}
				row.PasswordHash = "" // which no row holds
				m.Users[a.ID] = row
			}
		case *domain.Client:
			if a.Live() || a.ClaimedAs != 0 {
				m.Clients[a.ID] = projections.ClientRow{Versions: stands[id], Client: *a}
			}
		case *domain.Mapping:
			if a.Live() {
				m.Mappings[a.ID] = projections.MappingRow{Versions: stands[id], Mapping: *a}
			}
		case *domain.Key:
			if a.Live() {
				m.Keys[a.ID] = projections.KeyRow{Versions: stands[id], Key: *a}
			}
		case *domain.Login:
			if a.Live() {
				m.Logins[a.ID] = projections.LoginRow{Versions: stands[id], Login: *a}
			}
		case *domain.Share:
			if a.Live() {
				m.Shares[a.ID] = projections.ShareRow{Versions: stands[id], Share: *a}
			}
		case *domain.Invite:
			if a.Live() {
				m.Invites[a.ID] = projections.InviteRow{Versions: stands[id], Invite: *a}
			}
		case *domain.Domain:
			if a.Live() {
				m.Domains[a.ID] = projections.DomainRow{Versions: stands[id], Domain: *a}
			}
		case *domain.Webhook:
			if a.Live() {
				m.Webhooks[a.ID] = projections.WebhookRow{Versions: stands[id], Webhook: *a}
			}
		case *domain.Quota:
			m.Quotas[a.Account] = projections.QuotaRow{Versions: stands[id], Account: a.Account, Limits: a.Limits,
				Clients: int64(len(a.Clients)), Mappings: int64(len(a.Mappings)), ActiveMappings: a.Active, UpdatedAt: last[id].Meta.At}
		}
	}
	maps.DeleteFunc(m.Quotas, func(account int64, _ projections.QuotaRow) bool {
		_, user := m.Users[account]
		client := m.Clients[account]
		return !user && !client.Client.Live()
	})
	return m, nil
}

// Check compares everything that can be read with the model.
func (m *Model) Check(ctx context.Context, r *projections.Reader, all *Log) error {
	position, err := r.Position(ctx)
	if err != nil || position != m.Position {
		return fmt.Errorf("position %d, %v; want %d", position, err, m.Position)
	}
	if err := m.checkRows(ctx, r, all); err != nil {
		return err
	}
	return m.checkLists(ctx, r, all)
}

// checkRows asks for every id the log ever knew, so that what was deleted is
// seen to be gone.
func (m *Model) checkRows(ctx context.Context, r *projections.Reader, all *Log) error {
	for id := range all.streams() {
		n := id.Number()
		var err error
		switch id.Category() {
		case domain.CategoryUser:
			err = same(m.Users, n, r.User)(ctx)
		case domain.CategoryClient:
			err = same(m.Clients, n, r.Client)(ctx)
		case domain.CategoryMapping:
			err = same(m.Mappings, n, r.Mapping)(ctx)
		case domain.CategoryQuota:
			err = same(m.Quotas, n, r.Quota)(ctx)
		case domain.CategoryKey:
			err = same(m.Keys, n, r.Key)(ctx)
		case domain.CategoryLogin:
			err = same(m.Logins, n, r.Login)(ctx)
		case domain.CategoryShare:
			err = same(m.Shares, n, r.Share)(ctx)
		case domain.CategoryInvite:
			err = same(m.Invites, n, r.Invite)(ctx)
		case domain.CategoryDomain:
			err = same(m.Domains, n, r.Domain)(ctx)
		case domain.CategoryWebhook:
			err = same(m.Webhooks, n, r.Webhook)(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

func (l *Log) streams() map[domain.StreamID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := map[domain.StreamID]bool{}
	for id := range l.version {
		ids[id] = true
	}
	return ids
}

func same[R any](want map[int64]R, id int64, read func(context.Context, int64) (R, bool, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		got, ok, err := read(ctx, id)
		w, exists := want[id]
		if err != nil || ok != exists || !reflect.DeepEqual(got, w) {
			return fmt.Errorf("read %+v, %v, %v; want %+v, %v", got, ok, err, w, exists)
		}
		return nil
	}
}

// checkLists compares every list of every id with what the rows say.
func (m *Model) checkLists(ctx context.Context, r *projections.Reader, all *Log) error {
	if err := sameList(ctx, m.Users, func(projections.UserRow) bool { return true },
		func(ctx context.Context, after int64, n int) ([]projections.UserRow, int64, error) {
			return r.Users(ctx, after, n)
		}); err != nil {
		return fmt.Errorf("users: %w", err)
	}
	if err := sameList(ctx, m.Logins, func(projections.LoginRow) bool { return true }, r.Logins); err != nil {
		return fmt.Errorf("logins: %w", err)
	}
	for _, u := range m.Users {
		if named, ok, err := r.UserNamed(ctx, strings.ToUpper(u.Username)); err != nil || !ok || named.ID != u.ID {
			return fmt.Errorf("user named %q: %d, %v, %v; want %d", u.Username, named.ID, ok, err, u.ID)
		}
	}
	keys := map[projections.Index]func(projections.KeyRow) bool{
		projections.AllKeys: func(projections.KeyRow) bool { return true }, projections.KeysOfUser(0): func(k projections.KeyRow) bool { return k.UserID == 0 }}
	shares := map[projections.Index]func(projections.ShareRow) bool{
		projections.AllShares: func(projections.ShareRow) bool { return true }}
	invites := map[projections.Index]func(projections.InviteRow) bool{
		projections.AllInvites: func(projections.InviteRow) bool { return true }}
	domains := map[projections.Index]func(projections.DomainRow) bool{
		projections.AllDomains: func(projections.DomainRow) bool { return true }}
	webhooks := map[projections.Index]func(projections.WebhookRow) bool{
		projections.AllWebhooks: func(projections.WebhookRow) bool { return true }, projections.WebhooksOfUser(0): func(h projections.WebhookRow) bool { return h.UserID == 0 }}
	clients := map[projections.Index]func(projections.ClientRow) bool{
		projections.AllClients: func(c projections.ClientRow) bool { return c.Client.Live() }}
	mappings := map[projections.Index]func(projections.MappingRow) bool{
		projections.AllMappings: func(projections.MappingRow) bool { return true }}
	for id := range all.streams() {
		n := id.Number()
		switch id.Category() {
		case domain.CategoryUser:
			clients[projections.ClientsOfUser(n)] = func(c projections.ClientRow) bool { return c.UserID == n }
			keys[projections.KeysOfUser(n)] = func(k projections.KeyRow) bool { return k.UserID == n }
			webhooks[projections.WebhooksOfUser(n)] = func(h projections.WebhookRow) bool { return h.UserID == n }
			shares[projections.SharesOfUser(n)] = func(s projections.ShareRow) bool { return s.UserID == n }
			invites[projections.InvitesOfUser(n)] = func(i projections.InviteRow) bool { return i.UserID == n }
			domains[projections.DomainsOfUser(n)] = func(d projections.DomainRow) bool { return d.UserID == n }
			mappings[projections.MappingsOfUser(n)] = func(m projections.MappingRow) bool { return slices.Contains(m.Users(), n) }
		case domain.CategoryClient:
			mappings[projections.MappingsOfClient(n)] = func(m projections.MappingRow) bool {
				return m.HasEnd(n)
			}
		}
	}
	for index, in := range clients {
		if err := sameList(ctx, m.Clients, in, bind(r.Clients, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range keys {
		if err := sameList(ctx, m.Keys, in, bind(r.Keys, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range shares {
		if err := sameList(ctx, m.Shares, in, bind(r.Shares, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range invites {
		if err := sameList(ctx, m.Invites, in, bind(r.Invites, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range domains {
		if err := sameList(ctx, m.Domains, in, bind(r.Domains, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range webhooks {
		if err := sameList(ctx, m.Webhooks, in, bind(r.Webhooks, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	for index, in := range mappings {
		if err := sameList(ctx, m.Mappings, in, bind(r.Mappings, index)); err != nil {
			return fmt.Errorf("%s: %w", index, err)
		}
	}
	return nil
}

type pager[R any] func(ctx context.Context, after int64, limit int) ([]R, int64, error)

func bind[R any](list func(context.Context, projections.Index, int64, int) ([]R, int64, error), index projections.Index) pager[R] {
	return func(ctx context.Context, after int64, limit int) ([]R, int64, error) {
		return list(ctx, index, after, limit)
	}
}

func sameList[R any](ctx context.Context, rows map[int64]R, in func(R) bool, list pager[R]) error {
	var want []R
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		if in(rows[id]) {
			want = append(want, rows[id])
		}
	}
	var got []R
	for after := int64(0); ; {
		page, next, err := list(ctx, after, 7)
		if err != nil {
			return err
		}
		got = append(got, page...)
		if after = next; next == 0 {
			break
		}
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("lists %d rows %+v; want %d %+v", len(got), got, len(want), want)
	}
	return nil
}
