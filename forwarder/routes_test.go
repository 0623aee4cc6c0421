package forwarder_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/wire"
)

// Whatever happens in whatever order (commands, agents that come and go, views
// that lag, gaps in the feed), the routes come to what the log says, and nothing
// is left when everybody has gone.
func TestRoutesComeToWhatTheLogSays(t *testing.T) {
	seeds := 600
	if testing.Short() || pace.Race {
		seeds = 60
	}
	for seed := range seeds {
		m := &routesModel{t: t, seed: seed, rnd: rand.New(rand.NewPCG(uint64(seed), 7)), plane: newPlane(), routes: forwarder.NewRoutes()}
		m.run()
		if t.Failed() {
			return
		}
	}
}

// Who reads that a client was to be disconnected disconnects nobody, whenever it
// is: the session that is there may have begun after it. What comes behind it in
// the client's event stream is applied as ever.
func TestADisconnectThatIsReadEndsNothing(t *testing.T) {
	m := &routesModel{t: t, rnd: rand.New(rand.NewPCG(1, 7)), plane: newPlane(), routes: forwarder.NewRoutes(), fed: -1}
	m.command(0)
	m.command(1)
	client := m.clients[0]
	m.plane.do(t, domain.DisconnectClient{ID: client, Nodes: []string{"node-001"}, Epoch: 9}) // before the session
	view, err := m.plane.ClientView(t.Context(), client, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, refusal := m.routes.Connect(view); refusal != nil {
		t.Fatal(refusal)
	}
	m.follow()
	m.plane.do(t, domain.DisconnectClient{ID: client, Nodes: []string{"node-001"}, Epoch: 9}) // and after it began
	m.plane.do(t, domain.DrainNode{ID: 1, Since: time.Unix(1, 0)})
	m.feed(1 << 30)
	m.gap()
	m.feed(1 << 30)
	if !slices.Equal(m.routes.Connected(), []int64{client}) {
		t.Fatalf("connected are %v", m.routes.Connected())
	}
	m.plane.do(t, domain.SetClientEnabled{ID: client})
	m.feed(1 << 30)
	if left := m.routes.Connected(); len(left) > 0 {
		t.Errorf("%v are connected though disabled", left)
	}
}

// What the view of one client knows newer of a user holds for all: the record of it
// will come and be skipped.
func TestWhatOneViewKnowsHoldsForAll(t *testing.T) {
	m := &routesModel{t: t, rnd: rand.New(rand.NewPCG(1, 7)), plane: newPlane(), routes: forwarder.NewRoutes(), fed: -1}
	m.command(0)
	m.command(1)
	m.command(1)
	first, second := m.clients[0], m.clients[1]
	connect := func(client int64) *wire.Refusal {
		view, err := m.plane.ClientView(t.Context(), client, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, refusal := m.routes.Connect(view)
		return refusal
	}
	if refusal := connect(first); refusal != nil {
		t.Fatal(refusal)
	}
	m.follow()
	m.plane.do(t, domain.SetUserEnabled{ID: m.users[0]})
	if refusal := connect(second); refusal == nil {
		t.Error("a client of a disabled user is let in")
	}
	m.feed(1 << 30)
	if left := m.routes.Connected(); len(left) > 0 {
		t.Errorf("%v are connected though their user is disabled", left)
	}
}

type routesModel struct {
	t      *testing.T
	seed   int
	rnd    *rand.Rand
	plane  *plane
	routes *forwarder.Routes

	users, clients, mappings []int64
	fed                      domain.Position // how far the routes have come; -1 = the feed is not followed
	ports                    domain.Ingress  // held here; zero = none are
	hosts                    []string        // the same, when visitors have asked for them
}

func (m *routesModel) run() {
	m.fed = -1
	for range 2 {
		m.command(0)
	}
	if m.seed%2 == 0 { // with public ports, the half of those that there are
		m.ports = domain.Ingress{FirstPort: 20000, LastPort: 20007}
		m.routes.OpenIngress(m.ports)
		m.refreshIngress(m.ports, 0)
		m.follow()
		m.lookAgain()
	}
	for range 150 {
		switch n := m.rnd.IntN(20); {
		case n < 8:
			m.command(m.rnd.IntN(18))
		case n < 12:
			m.connect()
		case n < 14:
			m.routes.Disconnect(pick(m.rnd, m.clients))
		case n < 19:
			m.feed(m.rnd.IntN(10))
		case n < 20 && m.ports.LastPort != 0 && m.rnd.IntN(2) == 0:
			m.visit(pick(m.rnd, someHosts))
		default:
			m.gap()
		}
	}
	m.feed(1 << 30)
	m.compare()
	for _, id := range m.routes.Connected() {
		m.routes.Disconnect(id)
	}
	m.routes.CloseIngresses()
	if n := m.routes.Size(); n != 0 {
		m.t.Errorf("seed %d: %d things are left when everybody has gone", m.seed, n)
	}
}

func pick[T any](rnd *rand.Rand, ids []T) (none T) {
	if len(ids) == 0 {
		return none
	}
	return ids[rnd.IntN(len(ids))]
}

// visit is a visitor who asks for a host.
func (m *routesModel) visit(host string) {
	if !slices.Contains(m.hosts, host) {
		m.hosts = append(m.hosts, host)
	}
	m.routes.OpenHost(host)
	m.refreshIngress(domain.Ingress{Host: host}, 0)
	m.lookAgain()
}

// command does a random command; many are refused, as they should be.
func (m *routesModel) command(kind int) {
	id := m.plane.ids.Add(1)
	flag := m.rnd.IntN(2) == 0
	var c domain.Command
	switch kind {
	case 0:
		name := fmt.Sprintf("u%d", id)
		id += domain.FirstUserID
		m.users = append(m.users, id)
		c = domain.CreateUser{ID: id, Username: name, Email: name + "@example.org"}
	case 1:
		id += domain.FirstClientID
		m.clients = append(m.clients, id)
		c = domain.CreateClient{ID: id, UserID: pick(m.rnd, m.users), Name: "c", PublicKey: make([]byte, 32)}
	case 2:
		id += domain.FirstAnonymousID
		m.clients = append(m.clients, id)
		c = domain.RegisterClient{ID: id, PublicKey: make([]byte, 32)}
	case 3, 4, 5:
		m.mappings = append(m.mappings, id)
		c = domain.CreateMapping{ID: id, Any: true, UserID: pick(m.rnd, m.users), SourceClientID: pick(m.rnd, m.clients),
			TargetClientID: pick(m.rnd, m.clients), Protocol: domain.ProtocolTCP,
			Parts: domain.Parts{Origin: domain.Origin{LocalPort: int(id)}, Service: domain.Service{TargetHost: "h", TargetPort: 1}}}
	case 6:
		c = domain.SetMappingEnabled{ID: pick(m.rnd, m.mappings), Enabled: flag}
	case 7:
		c = domain.ChangeMapping{ID: pick(m.rnd, m.mappings), Patch: domain.Patch{"target_port": fmt.Append(nil, 1+id), "local_port": fmt.Append(nil, 1+id)}}
	case 8:
		c = domain.DeleteMapping{ID: pick(m.rnd, m.mappings)}
	case 9:
		c = domain.SetUserEnabled{ID: pick(m.rnd, m.users), Enabled: flag || m.rnd.IntN(2) == 0}
	case 10:
		c = domain.SetQuota{ID: pick(m.rnd, append(m.users, m.clients...)),
			Limits: domain.Limits{MaxConnectionsPerMapping: ptr(m.rnd.Int64N(3))}}
	case 12, 13:
		m.mappings = append(m.mappings, id)
		c = domain.CreateMapping{ID: id, Any: true, UserID: pick(m.rnd, m.users), TargetClientID: pick(m.rnd, m.clients), Protocol: domain.ProtocolTCP,
			Parts: domain.Parts{Origin: domain.Origin{PublicPort: m.drawPorts()}, Service: domain.Service{TargetHost: "h", TargetPort: 1}}}.Offered(publicOffer)
	case 16:
		m.mappings = append(m.mappings, id)
		c = domain.CreateMapping{ID: id, Any: true, UserID: pick(m.rnd, m.users), TargetClientID: pick(m.rnd, m.clients), Protocol: domain.ProtocolHTTP,
			Parts: domain.Parts{Origin: domain.Origin{PublicHost: pick(m.rnd, someHosts), PublicPath: pick(m.rnd, somePaths)},
				Service: domain.Service{TargetHost: "h", TargetPort: 1}}}.Offered(publicOffer)
	case 17:
		c = domain.ChangeMapping{ID: pick(m.rnd, m.mappings), Patch: domain.Patch{"public_host": fmt.Appendf(nil, "%q", pick(m.rnd, someHosts)),
			"public_path": fmt.Appendf(nil, "%q", pick(m.rnd, somePaths))}}.Offered(publicOffer)
	case 14:
		c = domain.ChangeMapping{ID: pick(m.rnd, m.mappings), Patch: domain.Patch{"public_port": fmt.Append(nil, 20000+m.rnd.IntN(16))}}.Offered(publicOffer)
	case 11:
		c = domain.DisconnectClient{ID: pick(m.rnd, m.clients), Epoch: 1}
	default:
		if m.rnd.IntN(4) > 0 {
			c = domain.SetClientEnabled{ID: pick(m.rnd, m.clients), Enabled: flag}
		} else if m.rnd.IntN(3) > 0 {
			c = domain.DeleteClient{ID: pick(m.rnd, m.clients)}
		} else {
			c = domain.DeleteUser{ID: pick(m.rnd, m.users)}
		}
	}
	_, _ = m.plane.try(c)
}

// publicOffer is what forwarders have in tests.
var publicOffer = domain.PublicOffer{Known: true, Ports: []domain.PortRange{{First: 20000, Last: 20015}}, Domains: map[domain.Protocol][]string{domain.ProtocolHTTP: {"t.example.org"}, domain.ProtocolTLS: {"t.example.org"}}, Now: time.Now().Add(100 * domain.PortKept)}

// refreshIngress looks an ingress up, or a part of one, as old as min allows and
// chance will have it.
func (m *routesModel) refreshIngress(what domain.Ingress, min domain.Position) {
	for again := min; ; {
		head := domain.Position(len(m.plane.records))
		at := again + domain.Position(m.rnd.Int64N(int64(head-again)+1))
		if at > 0 {
			m.plane.hidden = at
		}
		v, err := m.plane.IngressView(m.t.Context(), what, again)
		m.plane.hidden = 0
		if err != nil {
			m.t.Fatal(err)
		}
		if at == 0 {
			v = domain.IngressView{Ingress: what}
		}
		if again = m.routes.RefreshIngress(v); again == 0 {
			return
		}
	}
}

// view looks a client up, as old as min allows and chance will have it, and
// sometimes with parts that are newer than it says.
func (m *routesModel) view(client int64, min domain.Position) (domain.ClientView, error) {
	head := domain.Position(len(m.plane.records))
	at := min + domain.Position(m.rnd.Int64N(int64(head-min)+1))
	if m.rnd.IntN(3) == 0 {
		v, err := m.plane.ClientView(m.t.Context(), client, 0)
		v.Position = at
		return v, err
	}
	if at == 0 {
		return domain.ClientView{}, &domain.Error{Code: domain.CodeClientNotFound}
	}
	m.plane.hidden = at
	defer func() { m.plane.hidden = 0 }()
	return m.plane.ClientView(m.t.Context(), client, min)
}

func (m *routesModel) connect() {
	client := pick(m.rnd, m.clients)
	want, enough, _ := m.routes.Freshness()
	min := want
	if m.rnd.IntN(2) == 0 {
		min = enough
	}
	for {
		v, err := m.view(client, min)
		if err != nil {
			return
		}
		again, _ := m.routes.Connect(v)
		if again == 0 {
			break
		}
		min = again
	}
	m.follow()
	m.lookAgain()
}

// follow starts the feed where the views say.
func (m *routesModel) follow() {
	if m.fed >= 0 {
		return
	}
	if from, ok := m.routes.Start(); ok {
		m.fed = from
	}
}

// feed applies up to n records.
func (m *routesModel) feed(n int) {
	for ; m.fed >= 0 && n > 0 && int(m.fed) < len(m.plane.records); n-- {
		record := m.plane.records[m.fed]
		m.fed++
		if err := m.routes.Advance(record); err != nil {
			m.t.Fatal(err)
		}
		m.lookAgain()
	}
}

// lookAgain looks up what the routes ask for.
func (m *routesModel) lookAgain() { m.routes.Again(m.refresh, m.refreshIngress) }

func (m *routesModel) refresh(client int64, min domain.Position) {
	for again := min; ; {
		v, err := m.view(client, again)
		if err != nil {
			m.routes.Disconnect(client) // it is gone
			return
		}
		if again = m.routes.Refresh(v); again == 0 {
			return
		}
	}
}

// gap is a feed that lost records: everybody is looked up again.
func (m *routesModel) gap() {
	if m.fed < 0 {
		return
	}
	known := m.routes.Halt()
	m.fed = -1
	connected := m.routes.Connected()
	slices.Sort(connected)
	for _, client := range connected {
		m.refresh(client, known)
	}
	if m.ports != (domain.Ingress{}) {
		m.refreshIngress(m.ports, known)
	}
	for _, host := range m.hosts { // some were let go of, and visitors ask again
		m.routes.OpenHost(host)
		m.refreshIngress(domain.Ingress{Host: host}, known)
	}
	m.follow()
	m.lookAgain()
}

// compare holds the routes of the connected clients against the log.
func (m *routesModel) compare() {
	for _, id := range m.routes.Connected() {
		c := m.plane.states[domain.ClientStream(id)].(*domain.Client)
		if !c.Live() || c.Disabled || (c.UserID != 0 && !m.userWorks(c.UserID)) {
			m.t.Errorf("seed %d: client %d is connected and may not be", m.seed, id)
			continue
		}
		var want strings.Builder
		slices.Sort(m.mappings)
		for _, mid := range m.mappings {
			mapping, ok := m.plane.states[domain.MappingStream(mid)].(*domain.Mapping)
			if !ok || !mapping.Exists() || mapping.SourceClientID != id {
				continue
			}
			works := mapping.Active() && m.userWorks(mapping.UserID)
			if works {
				fmt.Fprintf(&want, "%d:%s:%d ", mid, mapping.LocalHost, mapping.LocalPort)
			}
			m.compareOpen(mapping, works)
		}
		if got := m.routes.Configuration(id); got != want.String() {
			m.t.Errorf("seed %d: client %d has %q, want %q", m.seed, id, got, want.String())
		}
	}
	m.comparePorts()
	m.compareHosts()
}

var someHosts, somePaths = []string{"otter", "heron"}, []string{"/", "/a", "/a/b"}

// compareHosts asks every host that is held for the longest prefix of some paths.
func (m *routesModel) compareHosts() {
	for _, host := range m.hosts {
		want := make([]int64, len(somePaths))
		for i, path := range somePaths {
			longest := ""
			for _, id := range m.mappings {
				mapping, ok := m.plane.states[domain.MappingStream(id)].(*domain.Mapping)
				if !ok || !mapping.Live() || mapping.PublicHost != host || !domain.PathBelow(path, mapping.PublicPath) || len(mapping.PublicPath) < len(longest) {
					continue
				}
				longest, want[i] = mapping.PublicPath, 0
				if mapping.Active() && m.userWorks(mapping.UserID) {
					want[i] = id
				}
			}
		}
		if got := m.routes.Hosts(host, somePaths...); !slices.Equal(got, want) {
			m.t.Errorf("seed %d: the paths of %s lead to %v, want %v", m.seed, host, got, want)
		}
	}
}

// drawPorts gives a port or a few, also some of which the routes' range has a part only.
func (m *routesModel) drawPorts() domain.PortRange {
	first := 20000 + m.rnd.IntN(16)
	return domain.PortRange{First: first, Last: min(first+m.rnd.IntN(3), 20015)}
}

func (m *routesModel) comparePorts() {
	if m.ports == (domain.Ingress{}) {
		return
	}
	want := map[int]int64{}
	for _, id := range m.mappings {
		mapping, ok := m.plane.states[domain.MappingStream(id)].(*domain.Mapping)
		if ok && mapping.Active() && m.ports.Has(mapping) && m.userWorks(mapping.UserID) {
			for _, port := range mapping.PublicPort.All() {
				if (domain.PortRange{First: m.ports.FirstPort, Last: m.ports.LastPort}).Has(port) {
					want[port] = id
				}
			}
		}
	}
	if got := m.routes.Ports(m.ports); !maps.Equal(got, want) {
		m.t.Errorf("seed %d: the public ports are %v, want %v", m.seed, got, want)
	}
}

func (m *routesModel) userWorks(id int64) bool {
	u := m.plane.states[domain.UserStream(id)].(*domain.User)
	return u.Live() && !u.Disabled
}

func (m *routesModel) compareOpen(mapping *domain.Mapping, works bool) {
	want := mapping.Service.Address()
	switch {
	case !mapping.Live():
		want = string(wire.NoSuchMapping)
	case !works:
		want = string(wire.MappingDisabled)
	case m.limited(mapping):
		want = string(wire.QuotaConnections)
	case !slices.Contains(m.routes.Connected(), mapping.TargetClientID):
		want = string(wire.TargetOffline)
	}
	if got := m.routes.Open(mapping.SourceClientID, mapping.ID); got != want {
		m.t.Errorf("seed %d: opening mapping %d gives %q, want %q", m.seed, mapping.ID, got, want)
	}
	other := mapping.TargetClientID
	if other != mapping.SourceClientID && slices.Contains(m.routes.Connected(), other) {
		if got := m.routes.Open(other, mapping.ID); got != string(wire.NoSuchMapping) {
			m.t.Errorf("seed %d: the target opens mapping %d: %q", m.seed, mapping.ID, got)
		}
	}
}

func (m *routesModel) limited(mapping *domain.Mapping) bool {
	for _, account := range mapping.Accounts() {
		limit := m.plane.states[domain.QuotaStream(account)].(*domain.Quota).Limits.MaxConnectionsPerMapping
		if limit != nil && *limit == 0 {
			return true
		}
	}
	return false
}

// However many clients there are and whatever the feed says of them, the routes
// hold the connected ones and what belongs to these.
func TestRoutesHoldTheConnectedOnly(t *testing.T) {
	p, routes := newPlane(), forwarder.NewRoutes()
	user := domain.FirstUserID + 1
	p.do(t, domain.CreateUser{ID: user, Username: "ann", Email: "ann@example.org"})
	const clients, connected = 3000, 10
	id := func(i int) int64 { return domain.FirstClientID + int64(i%clients) }
	for i := range clients {
		p.do(t, domain.CreateClient{ID: id(i), UserID: user, Name: "c", PublicKey: make([]byte, 32)})
	}
	for i := range connected {
		view, err := p.ClientView(t.Context(), id(i), 0)
		if err != nil {
			t.Fatal(err)
		}
		if again, refusal := routes.Connect(view); again != 0 || refusal != nil {
			t.Fatal(again, refusal)
		}
	}
	from, _ := routes.Start()
	for i := range clients { // each is source of one and target of another
		p.do(t, domain.CreateMapping{ID: domain.FirstMappingID + int64(i), UserID: user, SourceClientID: id(i), TargetClientID: id(i + 1),
			Protocol: domain.ProtocolTCP, Parts: domain.Parts{
				Origin: domain.Origin{LocalPort: 1 + i}, Service: domain.Service{TargetHost: "h", TargetPort: 1}}})
	}
	for _, record := range p.records[from:] {
		if err := routes.Advance(record); err != nil {
			t.Fatal(err)
		}
	}
	// The clients, the mappings between them and out of and into their row, and
	// what one account has.
	if n, most := routes.Size(), connected+(connected+1)+2; n > most {
		t.Errorf("%d things are held for %d of %d clients, want %d at most", n, connected, clients, most)
	}
	if got := routes.Configuration(id(0)); got == "" {
		t.Error("a connected client has no configuration")
	}
}
