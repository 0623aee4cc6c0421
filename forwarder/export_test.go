package forwarder

import (
	"fmt"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

// Routes lets the model test drive the routes without sessions and time.
type Routes struct {
	r        *routes
	sessions map[int64]*session
	epoch    int64
	again    map[subject]domain.Position // what to look up again
}

// NewRoutes gives empty routes.
func NewRoutes() *Routes {
	return &Routes{r: newRoutes(NewMetrics()), sessions: map[int64]*session{}, again: map[subject]domain.Position{}}
}

// Connect installs a session of the client. It reports the position at which to
// look the client up again, if the view was too old, and the refusal.
func (m *Routes) Connect(view domain.ClientView) (again domain.Position, refusal *wire.Refusal) {
	m.epoch++
	s := &session{client: view.Client.State.ID, key: view.Client.State.PublicKey, carries: carries{"tcp"}}
	replaced, fx, again, refusal := m.r.install(s, view)
	if again == 0 && refusal == nil {
		m.sessions[s.client] = s
		if replaced != nil {
			m.r.leave(replaced)
		}
	}
	m.carryOut(fx)
	return again, refusal
}

// Disconnect ends the client's session.
func (m *Routes) Disconnect(client int64) {
	if s := m.sessions[client]; s != nil {
		m.r.leave(s)
		delete(m.sessions, client)
	}
}

// Connected lists the clients with a session.
func (m *Routes) Connected() (clients []int64) {
	for id := range m.sessions {
		clients = append(clients, id)
	}
	return clients
}

func (m *Routes) carryOut(fx *effects) {
	if fx == nil {
		return
	}
	for s := range fx.ends {
		if m.sessions[s.client] == s {
			m.Disconnect(s.client)
		}
	}
	for what, min := range fx.refreshes {
		m.again[what] = max(min, m.again[what])
	}
}

// Advance applies a record.
func (m *Routes) Advance(record domain.Record) error {
	var fx effects
	err := m.r.advance(record, &fx)
	m.carryOut(&fx)
	return err
}

// Refresh merges a newer view.
func (m *Routes) Refresh(view domain.ClientView) (again domain.Position) {
	fx, again := m.r.refresh(view)
	m.carryOut(fx)
	return again
}

// OpenIngress has an ingress held; views of it come with RefreshIngress.
func (m *Routes) OpenIngress(what domain.Ingress) { m.r.openIngress(what) }

// RefreshIngress merges a view of an ingress, or of a part of one.
func (m *Routes) RefreshIngress(view domain.IngressView) (again domain.Position) {
	fx, again := m.r.refreshIngress(view)
	m.carryOut(fx)
	return again
}

// Again calls one of the two with what is to be looked up again, and the position to
// do it at, until there is nothing.
func (m *Routes) Again(client func(int64, domain.Position), ingress func(domain.Ingress, domain.Position)) {
	for len(m.again) > 0 {
		for what, min := range m.again {
			delete(m.again, what)
			if what.client != 0 {
				client(what.client, min)
			} else {
				ingress(what.ingress, min)
			}
		}
	}
}

// Ports gives the ports of the ingress that are to be open, with their mappings.
func (m *Routes) Ports(what domain.Ingress) map[int]int64 {
	ports := map[int]int64{}
	for key, mapping := range m.r.publicPorts(what) {
		ports[key.number] = mapping
	}
	return ports
}

// CloseIngresses lets go of all ingresses.
func (m *Routes) CloseIngresses() {
	for what, h := range m.r.ingresses {
		delete(m.r.ingresses, what)
		m.r.drop(h, &effects{})
	}
	for name, h := range m.r.hosts {
		m.r.dropHost(name, h, &effects{})
	}
}

// Start and Halt begin and end following the feed.
func (m *Routes) Start() (domain.Position, bool) { return m.r.start() }

// Halt is what a gap does.
func (m *Routes) Halt() domain.Position { return m.r.halt() }

// Freshness gives the position a view should have and the oldest that will do.
func (m *Routes) Freshness() (want, enough domain.Position, sure bool) { return m.r.freshness() }

// Configuration gives the client's listeners as text.
func (m *Routes) Configuration(client int64) string {
	listeners, _, _ := m.r.configuration(m.sessions[client])
	var b strings.Builder
	for _, l := range listeners {
		fmt.Fprintf(&b, "%d:%s:%d ", l.MappingId, l.Host, l.Port)
	}
	return b.String()
}

// Open asks for a stream of the mapping, gives it back, and tells the service or
// the code of the refusal.
func (m *Routes) Open(client, mapping int64) string {
	f, code := m.r.admit(m.sessions[client], mapping)
	if f == nil {
		return string(code)
	}
	m.r.release(f)
	if f.target == nil {
		return string(wire.TargetOffline) // unless another forwarder has it
	}
	return f.service
}

// Size counts everything the routes hold.
func (m *Routes) Size() int {
	return len(m.r.clients) + len(m.r.mappings) + len(m.r.users) + len(m.r.limits)
}

// OpenHost has a public host held; views of it come with RefreshIngress.
func (m *Routes) OpenHost(name string) { m.carryOut(m.r.openHost(name, time.Now())) }

// Hosts gives the mapping that each path of a held host leads to, 0 for none.
func (m *Routes) Hosts(name string, paths ...string) (ids []int64) {
	for _, path := range paths {
		found, _, _ := m.r.host(name, path, time.Now())
		ids = append(ids, found.State.ID)
	}
	return ids
}

// HostCounts gives how many hosts the forwarder holds, with and without mappings.
func (f *Forwarder) HostCounts() (known, unknown int) { return f.routes.hostCounts() }

// Bounds of what strangers can ask for.
const (
	MaxUnknownHosts = maxUnknownHosts
	MaxHosts        = maxHosts
	NamesAtOnce     = namesAtOnce
)
