package control

import (
	"bytes"
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// maxTouches is how many of the feed's last records are remembered. A view that was
// read at a slightly older position than the feed's can be found unchanged with them.
const maxTouches = 4096

// maxCompares bounds the cost of this search, during which everybody waits.
const maxCompares = 1 << 20

// part names an event stream that a view depends on.
type part struct {
	category byte // the first letter: user, client, mapping, quota
	id       int64
}

func partOf(id domain.StreamID) part {
	if id == "" {
		return part{}
	}
	return part{id[0], id.Number()}
}

var (
	partClient  = domain.CategoryClient[0]
	partMapping = domain.CategoryMapping[0]
	partUser    = domain.CategoryUser[0]
	partQuota   = domain.CategoryQuota[0]
)

// touch is a record of the feed and what it makes out of date.
type touch struct {
	part part
	ends []int64 // the clients that get a mapping
}

// memory keeps views of clients, and knows up to which position each of them is true:
// the position at which it was read, or the feed's position while the feed is live. A
// record that changes a view removes the view.
type memory struct {
	capacity int // in parts, because the size of a view is that of its parts
	age      time.Duration
	silence  time.Duration // after which the feed counts as cut off
	now      func() time.Time
	metrics  *ClientMetrics

	mu       sync.Mutex
	byClient map[int64]*list.Element     // guarded by mu
	order    list.List                   // of *remembered, the last used first; guarded by mu
	users    map[part]map[int64]struct{} // part -> clients whose view has it; guarded by mu
	weight   int                         // guarded by mu
	position domain.Position             // of the last record of the feed, -1 = none yet; guarded by mu
	run      int                         // counts the feed's runs without a gap; guarded by mu
	heard    time.Time                   // the time of the feed's last entry; guarded by mu
	touches  []touch                     // of the positions up to position, without holes; guarded by mu
}

// remembered is a view in memory.
type remembered struct {
	view  domain.ClientView
	parts []part
	run   int // the run of the feed that keeps it true; 0 = none does
	at    time.Time
}

func newMemory(capacity int, age, silence time.Duration, now func() time.Time, metrics *ClientMetrics) *memory {
	return &memory{capacity: capacity, age: age, silence: silence, now: now, metrics: metrics, position: -1, run: 1,
		byClient: map[int64]*list.Element{}, users: map[part]map[int64]struct{}{}}
}

// get gives a view that is true at min. With old it also gives a view that no live feed
// keeps true and that is older than the allowed age, for when there is nothing better.
func (m *memory) get(clientID int64, min domain.Position, old bool) (v domain.ClientView, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byClient[clientID]
	if e == nil {
		return v, false
	}
	r := e.Value.(*remembered)
	good := m.good(r)
	if good < min || (!old && !m.watched(r) && m.now().Sub(r.at) > m.age) {
		return v, false
	}
	m.order.MoveToFront(e)
	v = cloneView(r.view)
	v.Position = good
	return v, true
}

// watched reports whether the feed would have shown a change. A feed that is silent for
// longer than the time between its heartbeats may be cut off. The caller holds the
// lock.
func (m *memory) watched(r *remembered) bool {
	return r.run == m.run && m.now().Sub(m.heard) <= m.silence
}

// good gives the position at which the view is true. The caller holds the lock.
func (m *memory) good(r *remembered) domain.Position {
	if r.run == m.run {
		return max(r.view.Position, m.position)
	}
	return r.view.Position
}

// cloneView gives the caller slices of its own.
func cloneView(v domain.ClientView) domain.ClientView {
	v.Client.State.PublicKey = bytes.Clone(v.Client.State.PublicKey)
	v.Mappings, v.Users, v.Limits = slices.Clone(v.Mappings), slices.Clone(v.Users), slices.Clone(v.Limits)
	return v
}

// put stores a view, unless a better one is there.
func (m *memory) put(v domain.ClientView) {
	r := &remembered{view: cloneView(v), parts: partsOf(v), at: m.now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.untouched(r) {
		r.run = m.run
	}
	id := v.Client.State.ID
	if e := m.byClient[id]; e != nil {
		if m.good(e.Value.(*remembered)) > m.good(r) {
			return
		}
		m.remove(e)
	}
	m.byClient[id] = m.order.PushFront(r)
	m.weight += len(r.parts)
	for _, p := range r.parts {
		if m.users[p] == nil {
			m.users[p] = map[int64]struct{}{}
		}
		m.users[p][id] = struct{}{}
	}
	for m.weight > m.capacity && m.order.Len() > 1 {
		m.remove(m.order.Back())
	}
	m.show()
}

func partsOf(v domain.ClientView) []part {
	parts := make([]part, 0, 1+len(v.Mappings)+len(v.Users)+len(v.Limits))
	parts = append(parts, part{partClient, v.Client.State.ID})
	for _, x := range v.Mappings {
		parts = append(parts, part{partMapping, x.State.ID})
	}
	for _, x := range v.Users {
		parts = append(parts, part{partUser, x.State.ID})
	}
	for _, x := range v.Limits {
		parts = append(parts, part{partQuota, x.State.Account})
	}
	return parts
}

// untouched reports whether the view is known to be true at the feed's position. The
// caller holds the lock.
func (m *memory) untouched(r *remembered) bool {
	if m.position < 0 {
		return false
	}
	behind := m.position - r.view.Position
	if behind <= 0 {
		return true
	}
	if behind > domain.Position(len(m.touches)) || int(behind)*len(r.parts) > maxCompares {
		return false
	}
	for _, t := range m.touches[len(m.touches)-int(behind):] {
		if slices.Contains(t.ends, r.view.Client.State.ID) || slices.Contains(r.parts, t.part) {
			return false
		}
	}
	return true
}

// observe handles the next record of the feed.
func (m *memory) observe(record domain.Record) {
	t := touch{part: partOf(record.Stream)}
	if t.part.category == partMapping {
		if event, err := record.Event(); err == nil {
			switch event.(type) {
			case domain.MappingCreated, domain.MappingChanged: // a change may name clients of further targets
				var m domain.Mapping
				m.Apply(event, record.Meta.At)
				t.ends = m.Ends()
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = m.now()
	if record.Position <= m.position {
		return
	}
	if m.position >= 0 && record.Position != m.position+1 {
		m.run++ // the missing records may have changed anything
		m.touches = nil
	}
	m.position = record.Position
	if len(m.touches) == maxTouches {
		m.touches = append(m.touches[:0], m.touches[maxTouches/2:]...)
	}
	m.touches = append(m.touches, t)
	for client := range m.users[t.part] {
		if t.part.category != partQuota || !m.count(client, record) {
			m.forget(client)
		}
	}
	for _, client := range t.ends {
		if e := m.byClient[client]; e != nil && e.Value.(*remembered).view.Position < record.Position {
			m.remove(e)
		}
	}
	m.show()
}

// count applies those records of a quota that change no limit. A busy account has many
// of them, and the views of all its clients should not be dropped for each. It reports
// false for a record that it cannot apply. The caller holds the lock.
func (m *memory) count(client int64, record domain.Record) bool {
	if record.Name == (domain.QuotaSet{}).EventName() {
		return false
	}
	r := m.byClient[client].Value.(*remembered)
	account := record.Stream.Number()
	i := slices.IndexFunc(r.view.Limits, func(l domain.Versioned[domain.AccountLimits]) bool { return l.State.Account == account })
	if i < 0 || record.Version > r.view.Limits[i].Version+1 {
		return false
	}
	r.view.Limits[i].Version = max(r.view.Limits[i].Version, record.Version)
	return true
}

// reached says that the feed is at p, without a record of interest since the last one.
func (m *memory) reached(p domain.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = m.now()
	if m.position < p {
		m.position, m.touches = p, nil
		m.run++
	}
}

// lost says that the feed was lost: its next record may belong to another log.
func (m *memory) lost() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.position, m.touches = -1, nil
	m.run++
}

// clear drops every view, and all knowledge of the feed.
func (m *memory) clear() {
	m.lost()
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Front(); e != nil; e = m.order.Front() {
		m.remove(e)
	}
	m.show()
}

// drop drops the view of a deleted client.
func (m *memory) drop(client int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(client)
	m.show()
}

// forget and remove are called with the lock held.
func (m *memory) forget(client int64) {
	if e := m.byClient[client]; e != nil {
		m.remove(e)
	}
}

func (m *memory) remove(e *list.Element) {
	r := m.order.Remove(e).(*remembered)
	id := r.view.Client.State.ID
	delete(m.byClient, id)
	m.weight -= len(r.parts)
	for _, p := range r.parts {
		if delete(m.users[p], id); len(m.users[p]) == 0 {
			delete(m.users, p)
		}
	}
}

func (m *memory) show() {
	m.metrics.clients.Set(float64(m.order.Len()))
	m.metrics.parts.Set(float64(m.weight))
}
