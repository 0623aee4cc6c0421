package forwarder

import (
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

// advance applies the next record of the feed. Records of clients that are not
// connected cost one map lookup; they are not even decoded.
func (r *routes) advance(record domain.Record, fx *effects) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if record.Position <= r.position {
		return nil
	}
	if err := r.apply(record, fx); err != nil {
		return err
	}
	r.recent.push(record)
	r.position = record.Position
	return nil
}

// reached notes that the feed is at p without a record there.
func (r *routes) reached(p domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.position = max(r.position, p)
}

func (r *routes) apply(record domain.Record, fx *effects) error {
	id := record.Stream.Number()
	switch record.Stream.Category() {
	case domain.CategoryClient:
		if c := r.clients[id]; c != nil {
			return r.applyClient(c, record, fx)
		}
	case domain.CategoryMapping:
		if record.Version == 1 {
			return r.applyNewMapping(record, fx)
		}
		if m := r.mappings[id]; m != nil {
			return r.applyMapping(m, record, fx)
		}
		return r.applyUnknown(record, fx)
	case domain.CategoryUser:
		if u := r.users[id]; u != nil {
			return r.applyUser(u, record, fx)
		}
	case domain.CategoryQuota:
		if l := r.limits[id]; l != nil {
			return r.applyLimits(l, record, fx)
		}
	}
	return nil
}

// next decodes the record if it is the next of a part at version known. A
// record that the part shows already gives nil. A later one means that records
// are missing, which the feed promises not to happen; stale is then called so
// that the clients concerned are looked up again.
func next(record domain.Record, known domain.Version, stale func()) (domain.Event, error) {
	if record.Version <= known {
		return nil, nil
	}
	if record.Version > known+1 {
		stale()
		return nil, nil
	}
	return record.Event()
}

func (r *routes) applyClient(c *clientRoute, record domain.Record, fx *effects) error {
	event, err := next(record, c.Version, func() { fx.refresh(c.subject, record.Position) })
	if event == nil || err != nil {
		return err
	}
	c.State.Apply(event, record.Meta.At)
	c.Version = record.Version
	r.judge(c, fx)
	return nil
}

// judge ends the session of a client that may no longer have one.
func (r *routes) judge(c *clientRoute, fx *effects) {
	if c.session == nil {
		return
	}
	if refusal := r.standing(&c.State, c.session.key); refusal != nil {
		fx.end(c.session, refusal)
	}
}

func (r *routes) applyMapping(m *mappingRoute, record domain.Record, fx *effects) error {
	event, err := next(record, m.Version, func() {
		for _, h := range m.held {
			fx.refresh(h.subject, record.Position)
		}
	})
	if event == nil || err != nil {
		return err
	}
	m.State.Apply(event, record.Meta.At)
	m.Version, m.at = record.Version, record.Position
	r.watched(m)
	if _, changed := event.(domain.MappingChanged); changed {
		r.rehold(m, record.Position, fx)
	}
	r.settle(m, record.Meta.At, fx)
	return nil
}

// rehold makes those who hold a mapping the ingresses where it comes in now, and the
// clients that it leads to now.
func (r *routes) rehold(m *mappingRoute, at domain.Position, fx *effects) {
	for _, h := range r.holders(&m.State) {
		if h.mappings[m.State.ID] == nil {
			r.take(h, m.Versioned, at, fx)
		}
	}
	for _, h := range slices.Clone(m.held) {
		if !h.wants(&m.State) {
			r.letGo(h, m, fx)
		}
	}
}

// applyUnknown finds mappings that nobody here had to do with, and which come in here
// from now on.
func (r *routes) applyUnknown(record domain.Record, fx *effects) error {
	if record.Name != (domain.MappingChanged{}).EventName() {
		return nil
	}
	event, err := record.Event()
	if err != nil {
		return err
	}
	var m domain.Mapping
	m.Apply(event, record.Meta.At)
	if len(r.ingressesOf(&m)) > 0 {
		fx.refresh(subject{ingress: m.Ingress()}, record.Position)
	}
	for _, t := range m.Targets { // the clients of further targets; the others have known it
		if c := r.clients[t.ClientID]; c != nil {
			fx.refresh(c.subject, record.Position)
		}
	}
	return nil
}

// settle does what a mapping's new state asks for: streams that may no longer be
// end, and the source agent's configuration follows. A changed service leaves
// live streams where they are; the next stream goes to the new one.
func (r *routes) settle(m *mappingRoute, at time.Time, fx *effects) {
	if source := r.clients[m.State.SourceClientID]; source != nil {
		fx.configure(source.session, at)
	}
	fx.listen(m.State.Ingress())
	code := r.usable(m)
	if code != "" {
		fx.resetAll(m, code)
	}
	if m.State.Deleted {
		r.forget(m)
	}
}

// applyNewMapping takes up a mapping for its ends that are connected here. One
// end may know it already, and a newer version of it: the other one's view was
// older and is being brought to the present.
func (r *routes) applyNewMapping(record domain.Record, fx *effects) error {
	event, err := record.Event()
	created, ok := event.(domain.MappingCreated)
	if !ok || err != nil {
		return err
	}
	var m domain.Versioned[domain.Mapping]
	m.State.Apply(created, record.Meta.At)
	m.Version = record.Version
	for _, h := range r.holders(&m.State) {
		if record.Position > h.viewed {
			r.take(h, m, record.Position, fx)
		}
	}
	if known := r.mappings[m.State.ID]; known != nil {
		r.settle(known, record.Meta.At, fx)
	}
	return nil
}

// holders gives those whose view has the mapping.
func (r *routes) holders(m *domain.Mapping) (all []*holding) {
	for _, end := range m.Ends() {
		if c := r.clients[end]; c != nil && !slices.Contains(all, &c.holding) {
			all = append(all, &c.holding)
		}
	}
	return append(all, r.ingressesOf(m)...)
}

// take has a subject hold a mapping that is new to it. The accounts behind it may
// not be known: an anonymous client's view has no users, and an ingress has those of
// its mappings. They have to be looked up before the mapping is good for anything.
func (r *routes) take(h *holding, m domain.Versioned[domain.Mapping], at domain.Position, fx *effects) {
	r.addMapping(h, m, at, fx)
	switch {
	case r.knowsAccounts(h, &m.State, fx):
	case h.subject.client != 0:
		fx.refresh(h.subject, at)
	default:
		fx.refresh(subject{ingress: m.State.Ingress()}, at)
	}
}

// knowsAccounts makes sure that the subject holds on to the user and the limits
// that the mapping needs. It reports false when they are not known here.
func (r *routes) knowsAccounts(h *holding, m *domain.Mapping, fx *effects) bool {
	owner := r.users[m.UserID]
	if owner == nil {
		return false
	}
	r.addUser(h, owner.Versioned, fx)
	for _, account := range m.Accounts() {
		l := r.limits[account]
		if l == nil {
			return false
		}
		r.addLimits(h, l.Versioned)
	}
	return true
}

func (r *routes) applyUser(u *userRoute, record domain.Record, fx *effects) error {
	id := u.State.ID
	event, err := next(record, u.Version, func() {
		r.eachHolding(func(h *holding) {
			if h.users[id] != nil {
				fx.refresh(h.subject, record.Position)
			}
		})
	})
	if event == nil || err != nil {
		return err
	}
	u.State.Apply(event, record.Meta.At)
	u.Version = record.Version
	switch event.(type) {
	case domain.UserDisabled, domain.UserEnabled, domain.UserDeleted:
		r.settleUser(id, record.Meta.At, fx)
	}
	return nil
}

// settleUser does what a user's new state asks for.
func (r *routes) settleUser(id int64, at time.Time, fx *effects) {
	for _, c := range r.clients {
		if c.users[id] != nil {
			r.judge(c, fx)
		}
	}
	r.eachHolding(func(h *holding) {
		if h.users[id] == nil {
			return
		}
		for _, m := range h.mappings {
			if m.State.UserID == id {
				r.settle(m, at, fx)
			}
		}
	})
}

func (r *routes) applyLimits(l *limitsRoute, record domain.Record, fx *effects) error {
	account := l.State.Account
	event, err := next(record, l.Version, func() {
		r.eachHolding(func(h *holding) {
			if h.limits[account] != nil {
				fx.refresh(h.subject, record.Position)
			}
		})
	})
	if event == nil || err != nil {
		return err
	}
	if set, ok := event.(domain.QuotaSet); ok {
		l.State.Limits = set.Limits
		l.account.limit(set.Limits)
		r.adoptAll(account)
	}
	l.Version = record.Version
	return nil
}

// adoptAll has the open streams of an account's mappings count that have a limit now.
func (r *routes) adoptAll(account int64) {
	if r.portions == nil {
		return
	}
	for _, m := range r.mappings {
		if m.begun == 0 || !slices.Contains(m.State.Accounts(), account) {
			continue
		}
		if limit, known := r.limit(m); known && limit >= 0 {
			r.adopt(m, limit)
		}
	}
}

// standing tells why a client may not have a session, or nil. key is the public
// key that the session's agent has proved to hold.
func (r *routes) standing(c *domain.Client, key []byte) *wire.Refusal {
	var owner *domain.User
	if c.Kind == domain.ClientManaged {
		owner = &domain.User{}
		if u := r.users[c.UserID]; u != nil {
			owner = &u.State
		}
	}
	return standing(c, owner, key)
}
