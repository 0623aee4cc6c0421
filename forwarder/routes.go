package forwarder

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// routes is what this forwarder knows: the clients connected to it, the mappings
// they are source or target of, those whose connections come in here, and the users
// and limits of the accounts behind those. It is the fold of a view per client and
// per ingress and the records after it, so it never says more than the log does. What
// is about sessions and listeners does not outlive them; hosts that visitors ask for
// are kept as long as there is room.
//
// Each part carries the version of its event stream. A record is applied when
// its version is the next one and skipped when the part already shows it; that
// makes views of different age and repeated records harmless.
type routes struct {
	mu        sync.Mutex
	clients   map[int64]*clientRoute
	ingresses map[domain.Ingress]*holding // ranges of ports
	hosts     map[string]*hostHolding
	mappings  map[int64]*mappingRoute
	checked   map[int64]*mappingRoute // of these, those with a health check, and some that had one
	users     map[int64]*userRoute
	limits    map[int64]*limitsRoute // by account

	// position is where the feed has been applied to, or will be followed from;
	// -1 before the first view.
	position  domain.Position
	following bool
	recent    recent
	metrics   *Metrics
	tally     *tally    // nil: nobody counts
	portions  *portions // nil: limits are this forwarder's alone
}

// clientRoute is a client with a session here.
type clientRoute struct {
	domain.Versioned[domain.Client]
	holding
	session *session
}

// mappingRoute is a mapping with at least one end connected here, or which comes in
// here.
type mappingRoute struct {
	domain.Versioned[domain.Mapping]
	at    domain.Position // the view's or record's that it was last seen in
	held  []*holding      // by whom it is
	live  map[*forward]struct{}
	begun int // of live, those that count here
	meter *meter

	portions *portions // those of its streams that count; nil: it never had a limit
	adopted  bool      // all of its streams do

	targets  map[targetKey]*targetLoad // of a mapping with several, or with a health check
	ailments int64                     // how many times a health check has found one to be down
}

// add and remove keep the mapping's live streams, and how many of them began here:
// those count against the owner's limit, at one node each.
func (m *mappingRoute) add(f *forward) {
	m.live[f] = struct{}{}
	if f.origin.counts() {
		m.begun++
		m.meter.opened(m.begun)
	}
}

func (m *mappingRoute) remove(f *forward) {
	if _, ok := m.live[f]; !ok {
		return
	}
	delete(m.live, f)
	f.lean(nil)
	if m.portions != nil {
		m.portions.give(m.meter.mapping, f)
	}
	if f.origin.counts() {
		m.begun--
		m.meter.closed(m.begun)
	}
}

type userRoute struct {
	domain.Versioned[domain.User]
	refs int
}

type limitsRoute struct {
	domain.Versioned[domain.AccountLimits]
	refs    int
	account *account
}

func newRoutes(metrics *Metrics) *routes {
	return &routes{
		metrics:   metrics,
		clients:   map[int64]*clientRoute{},
		ingresses: map[domain.Ingress]*holding{},
		hosts:     map[string]*hostHolding{},
		mappings:  map[int64]*mappingRoute{},
		checked:   map[int64]*mappingRoute{},
		users:     map[int64]*userRoute{},
		limits:    map[int64]*limitsRoute{},
		position:  -1,
	}
}

// install puts a session and its client's view into the routes, and gives the
// session that was in its place. A refusal says that the client, as it stands
// now, may not have this session.
//
// When the view is too old to be brought to the present it is not installed and
// again is the position to look the client up at.
func (r *routes) install(s *session, view domain.ClientView) (replaced *session, fx *effects, again domain.Position, refusal *wire.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reaches(view.Position) {
		return nil, nil, r.position, nil
	}
	fx = &effects{}
	if c := r.clients[s.client]; c != nil && c.session.epoch > s.epoch {
		return nil, fx, 0, wire.Refuse(wire.Superseded) // a newer one was faster
	}
	c := r.merge(view, fx)
	replaced, c.session = c.session, s
	if refusal = r.standing(&c.State, s.key); refusal != nil {
		// Whatever session was there stands or falls with the same state.
		if c.session = replaced; replaced == nil {
			r.unlink(c, fx)
		} else {
			r.judge(c, fx)
		}
		return nil, fx, 0, refusal
	}
	return replaced, fx, 0, nil
}

// refresh merges a newer view of a client that is still connected. again is as
// with install.
func (r *routes) refresh(view domain.ClientView) (fx *effects, again domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fx = &effects{}
	if r.clients[view.Client.State.ID] == nil {
		return fx, 0
	}
	if !r.reaches(view.Position) {
		return fx, r.position
	}
	c := r.merge(view, fx)
	r.judge(c, fx)
	fx.configure(c.session, time.Time{})
	for _, m := range c.mappings {
		if code := r.usable(m); code != "" {
			fx.resetAll(m, code)
		}
	}
	return fx, 0
}

// start gives the position to follow the feed from. ok is false as long as no
// client's view has given one.
func (r *routes) start() (from domain.Position, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.position < 0 {
		return 0, false
	}
	r.following = true
	r.recent.restart(r.position)
	return r.position, true
}

// halt forgets where the feed was, after a gap, and gives it. Views taken from
// now on give the position to start from again; they must not be older than what
// is known, or a read model that was flushed and fills again would look as if
// everybody had been deleted.
func (r *routes) halt() (was domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was = r.position
	r.forgetUnknown()
	r.following, r.position = false, -1
	r.recent.restart(0)
	return was
}

// distrust forgets, after the log was taken back, how new everything is. What a view
// has takes its place whatever its version, and what a view lacks has ended.
func (r *routes) distrust() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetUnknown()
	r.following, r.position = false, -1
	r.recent.restart(0)
	for _, c := range r.clients {
		c.Version, c.viewed = 0, 0
	}
	for _, h := range r.ingresses {
		h.viewed = 0
	}
	for _, h := range r.hosts {
		h.viewed = min(h.viewed, 0)
	}
	for _, m := range r.mappings {
		m.Version, m.at = 0, 0
	}
	for _, u := range r.users {
		u.Version = 0
	}
	for _, l := range r.limits {
		l.Version = 0
	}
}

// freshness gives the position that a view for a new session should have, and
// one with which it can still be brought to the present. sure is false as long
// as the feed is not followed and nothing is known of how old a view may be.
func (r *routes) freshness() (want, enough domain.Position, sure bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.following {
		return 0, 0, false
	}
	return r.position, r.recent.floor, true
}

// reaches tells whether a view of position p can be brought to the present. As
// long as the feed is not followed there is no present yet: it will start at the
// oldest view.
func (r *routes) reaches(p domain.Position) bool {
	if !r.following {
		if r.position < 0 || p < r.position {
			r.position = p
		}
		return true
	}
	return p >= r.position || r.recent.covers(p)
}

// merge takes over what the view knows better, drops mappings that it no longer
// has, and applies the recent records behind it.
func (r *routes) merge(view domain.ClientView, fx *effects) *clientRoute {
	id := view.Client.State.ID
	c := r.clients[id]
	if c == nil {
		c = &clientRoute{Versioned: view.Client, holding: newHolding(subject{client: id})}
		r.clients[id] = c
	}
	if view.Client.Version > c.Version {
		c.Versioned = view.Client
	}
	r.mergeInto(&c.holding, partsOf(view), nil, fx)
	return c
}

// forget takes a mapping that has ended out of the routes.
func (r *routes) forget(m *mappingRoute) {
	delete(r.mappings, m.State.ID)
	for _, h := range m.held {
		delete(h.mappings, m.State.ID)
	}
	m.held = nil
}

// leave takes a session out of the routes, unless a newer one has its place, and
// gives the streams that went through it; and those that were only being opened to
// it, which may still be opened elsewhere.
func (r *routes) leave(s *session) (live, opening []*forward) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[s.client]
	if c == nil {
		return nil, nil
	}
	for _, m := range c.mappings {
		for f := range m.live {
			switch {
			case f.origin.through(s), f.target == s && f.joined.Load():
				live = append(live, f)
				m.remove(f)
			case f.target == s:
				opening = append(opening, f)
			}
		}
	}
	if c.session == s {
		r.unlink(c, &effects{})
	}
	return live, opening
}

// unlink takes a client and all that only it needed out of the routes.
func (r *routes) unlink(c *clientRoute, fx *effects) {
	delete(r.clients, c.State.ID)
	r.drop(&c.holding, fx)
}

// current gives the client's session, or nil.
func (r *routes) current(clientID int64) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[clientID]; c != nil {
		return c.session
	}
	return nil
}

// sessions lists all sessions in the order of their clients.
func (r *routes) sessions() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*session, 0, len(r.clients))
	for _, c := range r.clients {
		all = append(all, c.session)
	}
	slices.SortFunc(all, func(a, b *session) int { return cmp.Compare(a.client, b.client) })
	return all
}

// connected counts the clients that are.
func (r *routes) connected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.clients)
}

// usable tells why nothing may be done for a mapping now, or "".
func (r *routes) usable(m *mappingRoute) wire.Code {
	owner := r.users[m.State.UserID]
	switch {
	case m.State.Deleted:
		return wire.NoSuchMapping
	case m.State.Disabled, owner == nil, !owner.State.Live(), owner.State.Disabled:
		return wire.MappingDisabled
	case !m.State.Protocol.Available():
		return wire.ProtocolUnavailable
	}
	return ""
}

// configuration gives what the session's agent is to listen on, and the position
// at which that is so.
// lacking are the mappings whose protocol or encryption the agent does not carry.
func (r *routes) configuration(s *session) (listeners []*wirepb.Listener, lacking []int64, at domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[s.client]
	if c == nil || c.session != s {
		return nil, nil, 0
	}
	for _, m := range c.mappings {
		if m.State.SourceClientID != s.client || r.usable(m) != "" {
			continue
		}
		if !s.carries.has(string(m.State.Protocol)) {
			lacking = append(lacking, m.State.ID)
			continue
		}
		if m.State.Options.EndToEnd() && !s.carries.has(carriesSeal) {
			lacking = append(lacking, m.State.ID)
			continue
		}
		listeners = append(listeners, &wirepb.Listener{Options: optionsText(m.State.Options),
			MappingId: m.State.ID, Protocol: string(m.State.Protocol), Name: strings.ToValidUTF8(m.State.Name, "?"),
			Host: m.State.LocalHost, Port: uint32(m.State.LocalPort), Version: uint64(m.Version), TargetClient: m.State.TargetClientID,
		})
	}
	slices.SortFunc(listeners, func(a, b *wirepb.Listener) int { return cmp.Compare(a.MappingId, b.MappingId) })
	slices.Sort(lacking)
	return listeners, lacking, max(r.position, c.viewed)
}

// counts gives the numbers of connected clients and of mappings that may carry
// streams, for metrics.
func (r *routes) counts() (clients, active int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.mappings {
		if r.usable(m) == "" {
			active++
		}
	}
	return len(r.clients), active
}
