package forwarder

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A mapping with a health check has each of its targets looked at, at intervals, by every
// forwarder that has the mapping: over the way that its visitors would go. The target
// agent reaches the service and says what came of it; nothing is carried.

const (
	checksAtOnce = 64          // looks that wait for an answer
	checkTick    = time.Second // how often it is decided who is looked at
	maxChecked   = 2000        // mappings of which a node tells the others
	checkConnect = "connect"   // wire.Open.check for a connection only
)

// checkOf is what the target agent does for a check: connect, or the URL that it gets.
func checkOf(m *domain.Mapping, service domain.Service) string {
	if m.HealthCheck == nil || m.HealthCheck.Kind != domain.HealthCheckHTTP || service.Kind() == domain.ServiceFiles {
		return checkConnect
	}
	u := url.URL{Scheme: cmp.Or(m.TargetScheme, "http"), Host: "localhost", Path: "/"}
	if service.Kind() == domain.ServiceHost {
		u.Host = service.At(0).Address()
	}
	if m.HTTP != nil && m.HTTP.HostHeader != "" {
		u.Host = m.HTTP.HostHeader
	}
	return u.Scheme + "://" + u.Host + m.HealthCheck.Complete().Path
}

// lookAtTargets looks at the targets of the mappings that want it, until ctx ends.
func (f *Forwarder) lookAtTargets(ctx context.Context) {
	room := make(chan struct{}, checksAtOnce)
	for wait.For(ctx, checkTick) {
		for _, c := range f.routes.due(time.Now(), &fromHealth{f}) {
			room <- struct{}{} // every look ends in bounded time
			if !f.start(func() {
				defer func() { <-room }()
				f.lookAt(c)
			}) {
				<-room
				f.routes.looked(c, nil, false)
			}
		}
	}
}

// dueCheck is a target that is to be looked at.
type dueCheck struct {
	m    *mappingRoute
	fwd  *forward
	of   choice
	rule domain.HealthCheck
}

// due gives the targets that are to be looked at now. Each is given once, until looked is
// called for it.
func (r *routes) due(now time.Time, from origin) (all []dueCheck) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, m := range r.checked {
		if r.mappings[id] != m || m.State.HealthCheck == nil {
			delete(r.checked, id)
			for _, l := range m.targets {
				l.good, l.bad, l.seen, l.down = 0, 0, false, l.down && l.asking
			}
			continue
		}
		if r.usable(m) != "" {
			continue
		}
		rule := m.State.HealthCheck.Complete()
		for _, c := range r.targets(m, 0) {
			if c.load.looking || now.Before(c.load.next) {
				continue
			}
			c.load.looking, c.load.next = true, now.Add(rule.Every())
			fwd := newForward(m, from)
			fwd.shape, fwd.index, fwd.check = c.shape, c.index, checkOf(&m.State, c.service)
			if client := r.clients[c.client]; client != nil {
				fwd.target = client.session
			}
			all = append(all, dueCheck{m, fwd, c, rule})
		}
	}
	return all
}

// lookAt asks the target agent, and notes the answer.
func (f *Forwarder) lookAt(c dueCheck) {
	ctx, cancel := context.WithTimeout(f.ctx, c.rule.Within())
	defer cancel()
	stream, err := f.reachTarget(ctx, c.fwd, &wirepb.Open{MappingId: c.m.meter.mapping}, c.of.client)
	if err == nil {
		_ = stream.Reset()
	}
	if f.ctx.Err() != nil {
		return
	}
	log := f.log.With("mapping", c.m.meter.mapping, "client", c.of.client, "target", c.of.index)
	switch f.routes.looked(c, err, true) {
	case domain.TargetDown:
		log.Warn("a target does not answer its health check; others are tried before it", "code", said(err))
	case domain.TargetUp:
		log.Info("a target answers its health check again")
	}
}

// looked notes what came of a look, or that there was none. It gives the new state of the
// target where that has changed, else 0.
func (r *routes) looked(c dueCheck, err error, answered bool) (changed rune) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := c.of.load
	l.looking = false
	if !answered {
		return 0
	}
	was, seen := l.down, l.seen
	l.seen = true
	if err != nil {
		l.good, l.bad = 0, l.bad+1
		l.down = l.down || l.bad >= c.rule.Unhealthy
	} else {
		l.good, l.bad = l.good+1, 0
		l.down = l.down && l.good < c.rule.Healthy && seen
	}
	switch {
	case l.down && !was:
		c.m.ailments++
		return domain.TargetDown
	case was && !l.down:
		return domain.TargetUp
	}
	return 0
}

// watched notes that a mapping has a health check. Who stops having one is found when its
// targets would be looked at. The lock is held.
func (r *routes) watched(m *mappingRoute) {
	if m.State.HealthCheck != nil {
		r.checked[m.State.ID] = m
	}
}

// Ailments is how many times a target of a mapping was found to be down by a health
// check here. Who keeps connections to its services gives them up when it rises.
func (f *Forwarder) Ailments(mapping int64) int64 {
	f.routes.mu.Lock()
	defer f.routes.mu.Unlock()
	if m := f.routes.mappings[mapping]; m != nil {
		return m.ailments
	}
	return 0
}

// Checked gives the health of targets as this forwarder knows it, for other processes:
// MAPPING:LETTERS, with commas between, in order.
func (f *Forwarder) Checked() string {
	r := f.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.Sorted(maps.Keys(r.checked))
	var text strings.Builder
	for _, id := range ids[:min(len(ids), maxChecked)] {
		m := r.checked[id]
		if r.mappings[id] != m || m.State.HealthCheck == nil {
			continue
		}
		if text.Len() > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "%d:", id)
		for _, c := range r.targets(m, 0) {
			switch {
			case !c.load.seen:
				text.WriteRune(domain.TargetUnknown)
			case c.load.down:
				text.WriteRune(domain.TargetDown)
			default:
				text.WriteRune(domain.TargetUp)
			}
		}
	}
	return text.String()
}
