package forwarder

import (
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

// subject is what there is a view of: a client, or an ingress.
type subject struct {
	client  int64 // 0: an ingress
	ingress domain.Ingress
}

// holding is what is known here because of one subject. What nothing holds any more
// is forgotten.
type holding struct {
	subject subject
	// viewed is the position its view was read at. Mappings created up to there are in
	// the view, or are gone.
	viewed   domain.Position
	mappings map[int64]*mappingRoute
	users    map[int64]*userRoute
	limits   map[int64]*limitsRoute
}

func newHolding(s subject) holding {
	return holding{subject: s, mappings: map[int64]*mappingRoute{}, users: map[int64]*userRoute{}, limits: map[int64]*limitsRoute{}}
}

// wants tells whether a mapping is one that the subject's view has.
func (h *holding) wants(m *domain.Mapping) bool {
	if h.subject.client != 0 {
		return m.HasEnd(h.subject.client)
	}
	return h.subject.ingress.Has(m)
}

// viewParts are the parts of a view that all kinds have.
type viewParts struct {
	position domain.Position
	mappings []domain.Versioned[domain.Mapping]
	users    []domain.Versioned[domain.User]
	limits   []domain.Versioned[domain.AccountLimits]
}

func partsOf(v domain.ClientView) viewParts {
	return viewParts{v.Position, v.Mappings, v.Users, v.Limits}
}

func partsOfIngress(v domain.IngressView) viewParts {
	return viewParts{v.Position, v.Mappings, v.Users, v.Limits}
}

// mergeInto takes over what a view knows better, drops mappings that it no longer
// has, and applies the recent records behind it. A view of a part of an ingress
// says nothing of the mappings outside of it, which part tells; nil is all.
func (r *routes) mergeInto(h *holding, view viewParts, part *domain.Ingress, fx *effects) {
	for _, u := range view.users {
		r.addUser(h, u, fx)
	}
	for _, l := range view.limits {
		r.addLimits(h, l)
	}
	seen := map[int64]bool{}
	for _, m := range view.mappings {
		if m.State.Live() && h.wants(&m.State) { // a part of an ingress may reach beyond this one
			seen[m.State.ID] = true
			r.addMapping(h, m, view.position, fx)
		}
	}
	for _, m := range h.mappings {
		switch {
		case seen[m.State.ID], part != nil && !part.Has(&m.State), m.at > view.position:
		case h.wants(&m.State):
			// The view is not older than what is known of the mapping, and lacks it:
			// it was deleted in a record that never came here.
			m.State.Deleted = true
			r.settle(m, time.Time{}, fx)
		default:
			r.letGo(h, m, fx)
		}
	}
	if part == nil {
		h.viewed = max(h.viewed, view.position)
	}
	for _, record := range r.recent.after(view.position) {
		// These were decoded before, if anything here had to do with them; one that
		// does not decode stopped the feed and is not among them.
		_ = r.apply(record, fx)
		// One that others hold has the record already, and this subject wants it since.
		if m := r.mappings[record.Stream.Number()]; m != nil && record.Stream.Category() == domain.CategoryMapping &&
			h.mappings[m.State.ID] == nil && m.State.Live() && h.wants(&m.State) {
			r.take(h, m.Versioned, m.at, fx)
		}
	}
}

// addUser has a subject hold a user. What a view of one subject knows newer is as new
// for all others: the feed's record of it will be skipped.
func (r *routes) addUser(h *holding, u domain.Versioned[domain.User], fx *effects) {
	known := r.users[u.State.ID]
	if known == nil {
		known = &userRoute{Versioned: u}
		r.users[u.State.ID] = known
	}
	if u.Version > known.Version {
		known.Versioned = u
		r.settleUser(u.State.ID, time.Time{}, fx)
	}
	if h.users[u.State.ID] == nil {
		h.users[u.State.ID] = known
		known.refs++
	}
}

func (r *routes) addLimits(h *holding, l domain.Versioned[domain.AccountLimits]) {
	account := l.State.Account
	known := r.limits[account]
	if known == nil {
		known = &limitsRoute{Versioned: l, account: newAccount(r.tally, account)}
		known.account.limit(l.State.Limits)
		r.limits[account] = known
	}
	if l.Version > known.Version {
		known.Versioned = l
		known.account.limit(l.State.Limits)
		r.adoptAll(account)
	}
	if h.limits[account] == nil {
		h.limits[account] = known
		known.refs++
	}
}

func (r *routes) addMapping(h *holding, m domain.Versioned[domain.Mapping], at domain.Position, fx *effects) {
	known := r.mappings[m.State.ID]
	isNew := known == nil
	if isNew {
		known = &mappingRoute{Versioned: m, live: map[*forward]struct{}{}, meter: newMeter(r.metrics, r.tally, &m.State, r.payer(m.State.UserID))}
		r.mappings[m.State.ID] = known
	}
	if h.mappings[m.State.ID] == nil {
		h.mappings[m.State.ID] = known
		known.held = append(known.held, h)
	}
	newer := m.Version > known.Version
	if newer {
		known.Versioned = m
	}
	if newer || isNew {
		r.watched(known)
		r.rehold(known, at, fx)
	}
	if newer {
		r.settle(known, time.Time{}, fx)
	}
	known.at = max(known.at, at)
}

// letGo ends that a subject holds a mapping. Streams of one that nobody holds end:
// no record would end them any more.
func (r *routes) letGo(h *holding, m *mappingRoute, fx *effects) {
	delete(h.mappings, m.State.ID)
	m.held = slices.DeleteFunc(m.held, func(o *holding) bool { return o == h })
	if len(m.held) == 0 {
		fx.resetAll(m, wire.NoSuchMapping)
		delete(r.mappings, m.State.ID)
	}
	fx.listen(h.subject.ingress)
}

// drop lets go of all that a subject holds.
func (r *routes) drop(h *holding, fx *effects) {
	for _, m := range h.mappings {
		r.letGo(h, m, fx)
	}
	for id, u := range h.users {
		if u.refs--; u.refs == 0 {
			delete(r.users, id)
		}
	}
	for id, l := range h.limits {
		if l.refs--; l.refs == 0 {
			delete(r.limits, id)
			l.account.leave()
		}
	}
}

// eachHolding calls do with every subject's.
func (r *routes) eachHolding(do func(*holding)) {
	for _, c := range r.clients {
		do(&c.holding)
	}
	for _, h := range r.ingresses {
		do(h)
	}
	for _, h := range r.hosts {
		do(&h.holding)
	}
}
