package forwarder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/netaddr"
)

// Public hosts are looked up when a visitor asks for one. What a lookup gives is a
// holding like that of a range of ports, kept up to date by the feed, so that it may
// be kept as long as there is room: the host that was asked for longest ago goes
// first. A host that nobody has is held too, without mappings, and for a short time:
// the feed brings it to life. There are no more of those than maxUnknownHosts, and
// visitors may ask for new names at a bounded rate, so that whoever invents names
// fills neither memory nor the control plane's day.
const (
	maxHosts        = 4096
	maxUnknownHosts = 1024
	unknownFor      = time.Minute

	// Names that are not known here: of one address, and of all together.
	namesPerSecond, namesAtOnce       = 20, 50
	allNamesPerSecond, allNamesAtOnce = 500, 1000
	maxAskers                         = 10_000 // addresses that are remembered for it
)

// Errors of Host.
var (
	// ErrNoHost: nobody has the host, or the path of it.
	ErrNoHost = errors.New("forwarder: no mapping has this host and path")
	// ErrBusy: too many names that are not known here are being asked for.
	ErrBusy = errors.New("forwarder: too many unknown hosts are being asked for")
)

// hostHolding is what is held because of a public host.
type hostHolding struct {
	holding
	used time.Time // when it was asked for last
}

// hosts bounds what asking for hosts costs.
type hosts struct {
	lookups singleflight.Group // by name
	all     *rate.Limiter

	mu     sync.Mutex
	askers map[string]*rate.Limiter // by address; guarded by mu
}

func newHosts() *hosts {
	return &hosts{all: rate.NewLimiter(allNamesPerSecond, allNamesAtOnce), askers: map[string]*rate.Limiter{}}
}

// allow tells whether a visitor may ask for a name that is not known here.
func (h *hosts) allow(visitor string, now time.Time) bool {
	from := netaddr.Group(visitor)
	h.mu.Lock()
	defer h.mu.Unlock()
	asker := h.askers[from]
	if asker == nil {
		if len(h.askers) >= maxAskers {
			for address, a := range h.askers {
				if a.TokensAt(now) >= namesAtOnce {
					delete(h.askers, address)
				}
			}
		}
		if len(h.askers) >= maxAskers {
			return false
		}
		asker = rate.NewLimiter(namesPerSecond, namesAtOnce)
		h.askers[from] = asker
	}
	return asker.AllowN(now, 1) && h.all.AllowN(now, 1)
}

// Host gives the mapping that a public host, by the name that mappings have for it,
// and a path without escapes lead to now, for a visitor at an address. It fails with ErrNoHost
// when there is none, with ErrBusy, or with why it could not be found out.
func (f *Forwarder) Host(ctx context.Context, name, path, visitor string) (domain.Versioned[domain.Mapping], error) {
	m, found, known := f.routes.host(name, path, f.now())
	if !known {
		if !f.hosts.allow(visitor, f.now()) {
			return m, ErrBusy
		}
		if err := f.lookUpHost(ctx, name); err != nil {
			return m, err
		}
		m, found, _ = f.routes.host(name, path, f.now())
	}
	if !found {
		return m, ErrNoHost
	}
	return m, nil
}

// HasHost reports whether a public host, by the name that mappings have for it, has a
// mapping of a protocol that is usable now, whatever its path. Its errors are those of
// Host, without ErrNoHost.
func (f *Forwarder) HasHost(ctx context.Context, name string, protocol domain.Protocol, visitor string) (bool, error) {
	has, known := f.routes.hostHas(name, protocol, f.now())
	if known {
		return has, nil
	}
	if !f.hosts.allow(visitor, f.now()) {
		return false, ErrBusy
	}
	if err := f.lookUpHost(ctx, name); err != nil {
		return false, err
	}
	has, _ = f.routes.hostHas(name, protocol, f.now())
	return has, nil
}

// MayAsk reports whether a visitor at an address may cause a question to the control
// plane. It counts like a name that is not known here.
func (f *Forwarder) MayAsk(visitor string) bool { return f.hosts.allow(visitor, f.now()) }

// lookUpHost has a host held, once for all who ask for it.
func (f *Forwarder) lookUpHost(ctx context.Context, name string) error {
	looking := f.hosts.lookups.DoChan(name, func() (any, error) {
		what := domain.Ingress{Host: name}
		ctx, cancel := context.WithTimeout(f.ctx, lookupTimeout)
		defer cancel()
		f.carryOut(f.routes.openHost(name, f.now()))
		for min := domain.Position(0); ; {
			view, err := f.ingressView(ctx, what, min)
			if err != nil {
				f.carryOut(f.routes.closeHost(name))
				return nil, fmt.Errorf("look up the public host %s: %w", name, err)
			}
			fx, again := f.routes.refreshIngress(view)
			f.carryOut(fx)
			signal(f.viewed)
			if again == 0 {
				return nil, nil
			}
			min = again
		}
	})
	select {
	case done := <-looking:
		return done.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// host finds the mapping for a path. known is false when the host must be looked up.
func (r *routes) host(name, path string, now time.Time) (found domain.Versioned[domain.Mapping], ok, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[name]
	if h == nil || h.viewed < 0 {
		return found, false, false
	}
	if len(h.mappings) > 0 || now.Sub(h.used) < unknownFor {
		known = true
	}
	if path == "*" {
		path = "/" // OPTIONS *
	}
	var best *mappingRoute
	for _, m := range h.mappings {
		if domain.PathBelow(path, m.State.PublicPath) && (best == nil || len(m.State.PublicPath) > len(best.State.PublicPath)) {
			best = m
		}
	}
	if len(h.mappings) > 0 {
		h.used = now
	}
	// What is disabled keeps its path: others must not take over what was below it.
	if best == nil || r.usable(best) != "" {
		return found, false, known
	}
	return best.Versioned, true, known
}

// hostHas looks for a mapping of a protocol. known is as with host.
func (r *routes) hostHas(name string, protocol domain.Protocol, now time.Time) (has, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[name]
	if h == nil || h.viewed < 0 {
		return false, false
	}
	for _, m := range h.mappings {
		has = has || m.State.Protocol == protocol && r.usable(m) == ""
	}
	if len(h.mappings) > 0 {
		h.used = now
	}
	return has, len(h.mappings) > 0 || now.Sub(h.used) < unknownFor
}

// openHost makes room for what a view of a host will bring.
func (r *routes) openHost(name string, now time.Time) *effects {
	r.mu.Lock()
	defer r.mu.Unlock()
	fx := &effects{}
	if r.hosts[name] != nil {
		r.hosts[name].used = now
		return fx
	}
	h := &hostHolding{holding: newHolding(subject{ingress: domain.Ingress{Host: name}}), used: now}
	h.viewed = -1
	r.hosts[name] = h
	if len(r.hosts) > maxUnknownHosts {
		r.shrinkHosts(fx)
	}
	return fx
}

// closeHost lets go of a host whose view did not come.
func (r *routes) closeHost(name string) *effects {
	r.mu.Lock()
	defer r.mu.Unlock()
	fx := &effects{}
	if h := r.hosts[name]; h != nil && h.viewed < 0 {
		r.dropHost(name, h, fx)
	}
	return fx
}

func (r *routes) dropHost(name string, h *hostHolding, fx *effects) {
	delete(r.hosts, name)
	r.drop(&h.holding, fx)
}

// shrinkHosts makes room when there are too many hosts of a kind: an eighth of them
// goes, so that not every new one costs a look at all. Those with live streams stay.
func (r *routes) shrinkHosts(fx *effects) {
	var named, unknown []string
	for name, h := range r.hosts {
		switch {
		case len(h.mappings) == 0:
			unknown = append(unknown, name)
		case !h.live():
			named = append(named, name)
		}
	}
	for names, most := range map[*[]string]int{&named: maxHosts, &unknown: maxUnknownHosts} {
		if len(*names) <= most {
			continue
		}
		slices.SortFunc(*names, func(a, b string) int { return r.hosts[a].used.Compare(r.hosts[b].used) })
		for _, name := range (*names)[:len(*names)-most*7/8] {
			r.dropHost(name, r.hosts[name], fx)
		}
	}
}

// live tells whether a mapping of the host has streams.
func (h *hostHolding) live() bool {
	for _, m := range h.mappings {
		if len(m.live) > 0 {
			return true
		}
	}
	return false
}

// forgetUnknown lets go of the hosts that nobody has.
func (r *routes) forgetUnknown() {
	for name, h := range r.hosts {
		if len(h.mappings) == 0 && h.viewed >= 0 {
			r.dropHost(name, h, &effects{}) // without mappings there is nothing to carry out
		}
	}
}

// hostCounts gives how many hosts are held, with and without mappings.
func (r *routes) hostCounts() (known, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.hosts {
		if len(h.mappings) > 0 {
			known++
		}
	}
	return known, len(r.hosts) - known
}
