// Package truth compares a cluster with its log: what it shows, what it knows and what
// it does. It is for tests that have taken a service away and brought it back.
//
// Its duty: [Read] folds the whole log. [Log.Shown] compares every list and quota of
// the API, [Log.Known] the mappings of a forwarder, and [Log.Listened] the sockets that
// an agent has open, as the kernel lists them.
//
// Its limit: it compares once and names all differences. A caller that waits for a
// cluster to settle calls it until there are none.
package truth

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/programs"
)

// Log is the content of a log: its records, and the state they fold to, in the API's
// form.
type Log struct {
	Records  []domain.Record
	Users    map[int64]programs.User
	Clients  map[int64]programs.Client
	Mappings map[int64]programs.Mapping

	quotas   []*domain.Quota
	disabled map[int64]bool // users
}

// Read reads a server's whole log, whose positions must be dense, and folds it.
func Read(api *programs.API) (*Log, error) {
	records, err := programs.List[domain.Record](api, "/api/v1/events?limit=500")
	if err != nil {
		return nil, err
	}
	l := &Log{Records: records, Users: map[int64]programs.User{}, Clients: map[int64]programs.Client{},
		Mappings: map[int64]programs.Mapping{}, disabled: map[int64]bool{}}
	states := map[domain.StreamID]domain.Aggregate{}
	for i, r := range records {
		if r.Position != domain.Position(i+1) {
			return nil, fmt.Errorf("record %d of the log has position %d", i+1, r.Position)
		}
		if states[r.Stream] == nil {
			states[r.Stream] = domain.NewAggregate(r.Stream)
		}
		if _, ok := states[r.Stream].(*domain.Login); ok {
			continue // the API hides its secrets, and nothing here is compared with it
		}
		if err := domain.Fold(states[r.Stream], []domain.Record{r}); err != nil {
			return nil, err
		}
	}
	for _, state := range states {
		l.add(state)
	}
	return l, nil
}

func (l *Log) add(state domain.Aggregate) {
	switch a := state.(type) {
	case *domain.User:
		if a.Live() {
			l.Users[a.ID] = programs.User{ID: a.ID, Username: a.Username}
			l.disabled[a.ID] = a.Disabled
		}
	case *domain.Client:
		if a.Live() {
			l.Clients[a.ID] = programs.Client{ID: a.ID, UserID: a.UserID, Type: string(a.Kind), Name: a.Name}
		}
	case *domain.Mapping:
		if a.Live() {
			encryption := a.Options.Encryption
			if a.SourceClientID != 0 { // what the API shows where nothing was said
				encryption = cmp.Or(encryption, "transport")
			}
			l.Mappings[a.ID] = programs.Mapping{ID: a.ID, UserID: a.UserID, Name: a.Name, Protocol: string(a.Protocol),
				Source: a.SourceClientID, Target: a.TargetClientID, LocalHost: a.LocalHost, LocalPort: a.LocalPort,
				TargetHost: a.TargetHost, TargetPort: a.TargetPort, Encryption: encryption, Status: map[bool]string{false: "active", true: "disabled"}[a.Disabled]}
		}
	case *domain.Quota:
		if !domain.IsAnonymous(a.Account) {
			l.quotas = append(l.quotas, a)
		}
	}
}

// String gives the size of the log.
func (l *Log) String() string {
	return fmt.Sprintf("%d records fold to %d users, %d clients and %d mappings", len(l.Records), len(l.Users), len(l.Clients), len(l.Mappings))
}

// Shown compares every list and quota of the API with the log.
func (l *Log) Shown(api *programs.API) error {
	errs := []error{
		listed(api, "/api/v1/users", l.Users, func(u *programs.User) int64 { return u.ID }),
		listed(api, "/api/v1/clients", l.Clients, clientID),
		listed(api, "/api/v1/mappings", l.Mappings, mappingID),
	}
	for id := range l.Users {
		errs = append(errs,
			listed(api, fmt.Sprintf("/api/v1/users/%d/clients", id), having(l.Clients, func(c programs.Client) bool { return c.UserID == id }), clientID),
			listed(api, fmt.Sprintf("/api/v1/users/%d/mappings", id), having(l.Mappings, func(m programs.Mapping) bool { return m.UserID == id }), mappingID))
	}
	for _, q := range l.quotas {
		errs = append(errs, quota(api, q))
	}
	return errors.Join(errs...)
}

func mappingID(m *programs.Mapping) int64 { return m.ID }

// clientID also removes presence, which the log does not know.
func clientID(c *programs.Client) int64 { c.Status, c.NodeID = "", ""; return c.ID }

func having[T any](all map[int64]T, is func(T) bool) map[int64]T {
	some := map[int64]T{}
	for id, item := range all {
		if is(item) {
			some[id] = item
		}
	}
	return some
}

// listed compares a list with the expected one.
func listed[T any](api *programs.API, path string, want map[int64]T, id func(*T) int64) error {
	list, err := programs.List[T](api, path+"?limit=500")
	if err != nil {
		return err
	}
	var errs []error
	got := map[int64]T{}
	for _, item := range list {
		n := id(&item)
		if _, twice := got[n]; twice {
			errs = append(errs, fmt.Errorf("%s shows %d twice", path, n))
		}
		if got[n] = item; !reflect.DeepEqual(item, want[n]) {
			errs = append(errs, fmt.Errorf("%s shows %+v, the log says %+v", path, item, want[n]))
		}
	}
	for n, w := range want {
		if _, ok := got[n]; !ok {
			errs = append(errs, fmt.Errorf("%s does not show %+v", path, w))
		}
	}
	return errors.Join(errs...)
}

func quota(api *programs.API, q *domain.Quota) error {
	var shown struct {
		domain.Limits
		Clients        int64 `json:"clients"`
		Mappings       int64 `json:"mappings"`
		ActiveMappings int64 `json:"active_mappings"`
	}
	answer, err := api.Call(http.MethodGet, fmt.Sprintf("/api/v1/users/%d/quota", q.Account), nil)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("quota of %d: %d %s", q.Account, answer.Status, answer.Body)
	}
	if err == nil {
		err = json.Unmarshal(answer.Body, &shown)
	}
	if err == nil && (shown.Clients != int64(len(q.Clients)) || shown.Mappings != int64(len(q.Mappings)) ||
		shown.ActiveMappings != q.Active || !shown.Equal(q.Limits)) {
		err = fmt.Errorf("quota of %d is shown as %+v, the log says %d clients, %d mappings, %d active",
			q.Account, shown, len(q.Clients), len(q.Mappings), q.Active)
	}
	return err
}

// usable gives the mappings that may carry streams.
func (l *Log) usable(m programs.Mapping) bool { return m.Status == "active" && !l.disabled[m.UserID] }

// Known compares how many usable mappings a forwarder has with the log. clients are all
// that are connected to it: it knows their mappings and no others.
func (l *Log) Known(forwarder *programs.Server, clients ...int64) error {
	want := having(l.Mappings, func(m programs.Mapping) bool {
		return l.usable(m) && (slices.Contains(clients, m.Source) || slices.Contains(clients, m.Target))
	})
	got, err := forwarder.Metric("tunnox_mappings_active")
	if err == nil && int(got) != len(want) {
		err = fmt.Errorf("%s at %s knows %v mappings, the log has %d of clients %v", forwarder.Name, forwarder.Agents, got, len(want), clients)
	}
	return err
}

// Listened compares the addresses on which an agent listens with the log.
func (l *Log) Listened(agent *programs.Process, client int64) error {
	got, err := agent.Listens()
	if err != nil {
		return err
	}
	var want []netip.AddrPort
	for _, m := range l.Mappings {
		if m.Source == client && l.usable(m) {
			host, err := netip.ParseAddr(m.LocalHost)
			if err != nil {
				return fmt.Errorf("mapping %d: %w", m.ID, err)
			}
			want = append(want, netip.AddrPortFrom(host, uint16(m.LocalPort)))
		}
	}
	slices.SortFunc(want, netip.AddrPort.Compare)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the agent of client %d listens on %v, the log says %v", client, got, want)
	}
	return nil
}
