package flow

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/programs"
)

// order is a command of the load: its key, what it asks for, and what became of it.
type order struct {
	key, path, name string
	body            any
	answer          programs.Answer
	acknowledged    bool
}

// send asks for the order. A server that is gone leaves it unacknowledged.
func (o *order) send(api *programs.API) error {
	answer, err := api.Call(http.MethodPost, o.path, o.body, "Idempotency-Key", o.key)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusCreated {
		return fmt.Errorf("%s of %s: %d %s", o.path, o.name, answer.Status, answer.Body)
	}
	o.answer, o.acknowledged = answer, true
	return nil
}

// id is the id the answer gives what was created.
func (o *order) id(t *testing.T) int64 {
	t.Helper()
	var made struct {
		ClientID  int64 `json:"client_id"`
		MappingID int64 `json:"mapping_id"`
	}
	o.answer.Read(t, &made)
	if made.MappingID != 0 {
		return made.MappingID
	}
	return made.ClientID
}

// TestKillUnderLoad: kill -9 of the server under a load of commands. After the
// restart every acknowledged command is there once, the others are there once
// after a retry with their key, agents are back by themselves, bytes flow, and
// what the API shows is the fold of the log.
func TestKillUnderLoad(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		const callers, enough, backWithin = 8, 300, 5 * time.Second
		s := serve()
		p := newPair(t, s)
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		waitAnswer(t, m.LocalPort, "svc:before")
		live := programs.Dial(t, m.LocalPort)
		expect(t, live, "svc:")

		orders := make([][]*order, callers)
		var acknowledged atomic.Int64
		var load sync.WaitGroup
		for caller := range callers {
			load.Go(func() {
				for i := 0; ; i++ {
					o := p.order(caller, i)
					orders[caller] = append(orders[caller], o)
					if err := o.send(p.API); err != nil {
						return // the server is gone; a refusal shows below, where it is sent again
					}
					acknowledged.Add(1)
				}
			})
		}
		programs.Eventually(t, 30*time.Second, func() error {
			if n := acknowledged.Load(); n < enough {
				return fmt.Errorf("%d commands were acknowledged", n)
			}
			return nil
		})
		s.Kill()
		load.Wait()
		ended(t, live) // both ends hear of it

		s.Restart(t)
		ready := time.Now()
		waitAnswer(t, m.LocalPort, "svc:after")
		back := time.Since(ready)
		t.Logf("%d commands acknowledged before kill -9; bytes flow %v after the server was ready", acknowledged.Load(), back.Round(time.Millisecond))
		if back > backWithin && !programs.Race {
			t.Errorf("agents were back after %v, want %v", back, backWithin)
		}
		p.WaitOnline(t, p.source.ID)
		p.WaitOnline(t, p.target.ID)
		if p.sourceAgent.Exited() || p.targetAgent.Exited() {
			t.Error("an agent ended with the server")
		}
		p.checkOrders(t, orders)
		p.checkReadModels(t)
	})
}

// order makes the i-th order of a caller: clients, and every third a mapping.
func (p *pair) order(caller, i int) *order {
	o := &order{name: fmt.Sprintf("load-%d-%d", caller, i)}
	o.key = "key-" + o.name
	if i%3 == 2 {
		o.path = path("/mappings")
		wanted := p.wanted(1024+caller*5000+i, 9)
		wanted.Source, wanted.Name = p.target.ID, o.name
		wanted.LocalHost = "127.0.0.3" // not among the ports other tests look at
		o.body = wanted
		return o
	}
	o.path = path("/clients")
	o.body = map[string]any{"user_id": p.user.ID, "client_name": o.name}
	return o
}

// checkOrders sends every order once more: an acknowledged one gives the answer it
// gave, the others succeed now. Then each must be in the log exactly once.
func (p *pair) checkOrders(t *testing.T, orders [][]*order) {
	t.Helper()
	for _, of := range orders {
		for _, o := range of {
			first := *o
			if err := o.send(p.API); err != nil {
				t.Fatalf("again: %v", err)
			}
			if first.acknowledged && (first.id(t) != o.id(t) || o.answer.Header.Get("Idempotency-Replayed") != "true") {
				t.Errorf("%s was acknowledged as %s, is now %s", o.name, first.answer.Body, o.answer.Body)
			}
		}
	}
	created := map[string][]domain.StreamID{}
	for _, r := range p.log(t) {
		var data struct{ Name string }
		if r.Name != "client_created" && r.Name != "mapping_created" {
			continue
		}
		if err := json.Unmarshal(r.Data, &data); err != nil {
			t.Fatal(err)
		}
		created[data.Name] = append(created[data.Name], r.Stream)
	}
	for _, of := range orders {
		for _, o := range of {
			if streams := created[o.name]; len(streams) != 1 || streams[0].Number() != o.id(t) {
				t.Errorf("%s with id %d is in the log as %v", o.name, o.id(t), streams)
			}
		}
	}
}

// log reads the whole log and checks that its positions are dense.
func (p *pair) log(t *testing.T) []domain.Record {
	t.Helper()
	records := programs.All[domain.Record](t, p.API, path("/events?limit=500"))
	for i, r := range records {
		if r.Position != domain.Position(i+1) {
			t.Fatalf("record %d has position %d", i+1, r.Position)
		}
	}
	return records
}

// checkReadModels compares every list and quota of the API with the fold of the log.
func (p *pair) checkReadModels(t *testing.T) {
	t.Helper()
	records := p.log(t)
	states := map[domain.StreamID]domain.Aggregate{}
	for _, r := range records {
		if states[r.Stream] == nil {
			states[r.Stream] = domain.NewAggregate(r.Stream)
		}
		if err := domain.Fold(states[r.Stream], []domain.Record{r}); err != nil {
			t.Fatal(err)
		}
	}
	users, clients, mappings := map[int64]programs.User{}, map[int64]programs.Client{}, map[int64]programs.Mapping{}
	for _, state := range states {
		switch a := state.(type) {
		case *domain.User:
			if a.Live() {
				users[a.ID] = programs.User{ID: a.ID, Username: a.Username}
			}
		case *domain.Client:
			if a.Live() {
				clients[a.ID] = programs.Client{ID: a.ID, UserID: a.UserID, Type: string(a.Kind), Name: a.Name}
			}
		case *domain.Mapping:
			if a.Live() {
				mappings[a.ID] = programs.Mapping{ID: a.ID, UserID: a.UserID, Name: a.Name, Protocol: string(a.Protocol),
					Source: a.SourceClientID, Target: a.TargetClientID, LocalHost: a.LocalHost, LocalPort: a.LocalPort,
					TargetHost: a.TargetHost, TargetPort: a.TargetPort, Status: map[bool]string{false: "active", true: "disabled"}[a.Disabled]}
			}
		case *domain.Quota:
			p.checkQuota(t, a)
		}
	}
	compare(t, "users", users, byID(programs.All[programs.User](t, p.API, path("/users?limit=500")), func(u programs.User) int64 { return u.ID }))
	compare(t, "clients", clients, byID(programs.All[programs.Client](t, p.API, path("/clients?limit=500")), func(c programs.Client) int64 { return c.ID }))
	compare(t, "mappings", mappings, byID(programs.All[programs.Mapping](t, p.API, path("/mappings?limit=500")), func(m programs.Mapping) int64 { return m.ID }))
	compare(t, "mappings of the user", mappings,
		byID(programs.All[programs.Mapping](t, p.API, path("/users/%d/mappings?limit=500", p.user.ID)), func(m programs.Mapping) int64 { return m.ID }))
	t.Logf("%d records fold to the %d users, %d clients and %d mappings that the API shows", len(records), len(users), len(clients), len(mappings))
}

func (p *pair) checkQuota(t *testing.T, q *domain.Quota) {
	t.Helper()
	if domain.IsAnonymous(q.Account) {
		return
	}
	var shown struct {
		domain.Limits
		Clients        int64 `json:"clients"`
		Mappings       int64 `json:"mappings"`
		ActiveMappings int64 `json:"active_mappings"`
	}
	p.Do(t, http.MethodGet, path("/users/%d/quota", q.Account), nil, &shown)
	if shown.Clients != int64(len(q.Clients)) || shown.Mappings != int64(len(q.Mappings)) || shown.ActiveMappings != q.Active || !shown.Equal(q.Limits) {
		t.Errorf("quota of %d is shown as %+v, the log says %d clients, %d mappings, %d active", q.Account, shown, len(q.Clients), len(q.Mappings), q.Active)
	}
}

// byID indexes what a list shows; what the log does not know (presence) is left out.
func byID[T any](list []T, id func(T) int64) map[int64]T {
	m := map[int64]T{}
	for _, item := range list {
		if c, ok := any(&item).(*programs.Client); ok {
			c.Status, c.NodeID = "", ""
		}
		m[id(item)] = item
	}
	return m
}

func compare[T any](t *testing.T, what string, want, got map[int64]T) {
	t.Helper()
	for id, w := range want {
		if g, ok := got[id]; !ok || !reflect.DeepEqual(g, w) {
			t.Errorf("%s: the log says %+v, the API shows %+v", what, w, g)
		}
	}
	for id, g := range got {
		if _, ok := want[id]; !ok {
			t.Errorf("%s: the API shows %+v, which is not in the log", what, g)
		}
	}
}
