package forwarder

import (
	"context"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// An ingress is where connections come in at this forwarder itself. What is known
// because of it is a holding like that of a client: from a view, and from then on
// from the feed. docs/decisions/ingress.md says why it lives here.

// openIngress has an ingress served: it is looked up until that works.
func (f *Forwarder) openIngress(ctx context.Context, what domain.Ingress) {
	f.routes.openIngress(what)
	f.refreshIngress(ctx, what, 0)
	signal(f.viewed)
}

// refreshIngress looks an ingress, or a part of one, up until it works.
func (f *Forwarder) refreshIngress(ctx context.Context, what domain.Ingress, min domain.Position) {
	var pause wait.Backoff
	for ctx.Err() == nil {
		view, err := f.ingressView(ctx, what, min)
		if err != nil {
			f.log.Warn("looking up what comes in here", "first_port", what.FirstPort, "last_port", what.LastPort, "error", err)
			pause.Wait(ctx)
			continue
		}
		fx, again := f.routes.refreshIngress(view)
		f.carryOut(fx)
		if again == 0 {
			return
		}
		min = again
	}
}

func (f *Forwarder) ingressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	view, err := f.lookup.IngressView(ctx, what, min)
	view.Ingress = what
	return view, err
}

// openIngress makes room for what a view will bring.
func (r *routes) openIngress(what domain.Ingress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ingresses[what] == nil {
		h := newHolding(subject{ingress: what})
		h.viewed = -1
		r.ingresses[what] = &h
	}
}

// refreshIngress merges a view of an ingress, or of a part of one. again is as with
// install.
func (r *routes) refreshIngress(view domain.IngressView) (fx *effects, again domain.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fx = &effects{}
	if !r.reaches(view.Position) {
		return fx, r.position
	}
	if h := r.hosts[view.Ingress.Host]; h != nil {
		r.mergeIngress(&h.holding, view, nil, fx)
	}
	for what, h := range r.ingresses {
		if !what.Meets(view.Ingress) {
			continue
		}
		part := &view.Ingress
		if what == view.Ingress {
			part = nil
		}
		r.mergeIngress(h, view, part, fx)
		fx.listen(what)
	}
	return fx, 0
}

func (r *routes) mergeIngress(h *holding, view domain.IngressView, part *domain.Ingress, fx *effects) {
	r.mergeInto(h, partsOfIngress(view), part, fx)
	for _, m := range h.mappings {
		if code := r.usable(m); code != "" {
			fx.resetAll(m, code)
		}
	}
}

// ingressesOf gives the holdings of the ingresses where a mapping comes in.
func (r *routes) ingressesOf(m *domain.Mapping) (all []*holding) {
	switch {
	case m.PublicHost != "":
		if h := r.hosts[m.PublicHost]; h != nil {
			all = append(all, &h.holding)
		}
	case m.PublicPort.First != 0:
		for _, h := range r.ingresses {
			if h.wants(m) {
				all = append(all, h)
			}
		}
	}
	return all
}

// subjects lists all that is served here.
func (r *routes) subjects() (all []subject) {
	for _, s := range r.sessions() {
		all = append(all, subject{client: s.client})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for what := range r.ingresses {
		all = append(all, subject{ingress: what})
	}
	for _, h := range r.hosts {
		all = append(all, h.subject)
	}
	return all
}

// begunOutside gives the streams that came in at this forwarder itself: no session's
// end ends them when their target is elsewhere.
func (r *routes) begunOutside() (all []*forward) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.mappings {
		for f := range m.live {
			if f.origin.outside() {
				all = append(all, f)
			}
		}
	}
	return all
}
