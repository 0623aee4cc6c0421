package forwarder

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/netaddr"
	"github.com/tunnox-net/tunnox/wire"
)

// doorkeeper bounds what addresses can cost before they have proved anything: logins
// under way, and new identities.
type doorkeeper struct {
	limits Limits
	now    func() time.Time

	mu        sync.Mutex
	all       *rate.Limiter // registrations from all addresses
	waiting   int
	hosts     map[string]int
	registrar map[string]*rate.Limiter
	clients   map[int64]*rate.Limiter // identities that have logged in recently
}

// The bounds of logins of one identity at this node. An agent whose network comes and
// goes needs a few a minute; each login costs a lookup in the directory, a
// configuration and lines in the log.
const (
	loginsPerSecond, loginsAtOnce = 2, 60
	// maxLoginsKept bounds how many identities are remembered.
	maxLoginsKept = 100_000
)

// Bounds of the lines that others can make the forwarder write to its log at info and
// above: failed logins of all strangers, and failed listeners of one agent. The metrics
// count the rest, and at debug all failed logins are in the log.
const (
	strangersPerSecond, strangersAtOnce   = 5, 50
	complaintsPerSecond, complaintsAtOnce = 1, 20
)

// maxRegistrars bounds how many addresses are remembered for their registrations.
// Beyond that, idle ones are dropped; if all are busy the next stranger waits.
const maxRegistrars = 10_000

func newDoorkeeper(limits Limits, now func() time.Time) *doorkeeper {
	return &doorkeeper{limits: limits, now: now,
		all:   rate.NewLimiter(rate.Limit(float64(limits.RegistrationsAll)/60), limits.RegistrationsAll),
		hosts: map[string]int{}, registrar: map[string]*rate.Limiter{}, clients: map[int64]*rate.Limiter{}}
}

// host gives the address that counts for limits. All memory transports have one.
func host(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return netaddr.Group(addr.String())
}

// enter counts a login that begins. Unless it refuses, leave must be called.
func (d *doorkeeper) enter(addr net.Addr) (leave func(), refusal *wire.Refusal) {
	from := host(addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting >= d.limits.Logins || d.hosts[from] >= d.limits.LoginsPerHost {
		r := wire.Refuse(wire.TooMany)
		r.RetryAfter = time.Second
		return nil, r
	}
	d.waiting++
	d.hosts[from]++
	var once sync.Once
	return func() { once.Do(func() { d.left(from) }) }, nil
}

func (d *doorkeeper) left(from string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting--
	if d.hosts[from]--; d.hosts[from] == 0 {
		delete(d.hosts, from)
	}
}

// register counts a registration, or refuses it.
func (d *doorkeeper) register(addr net.Addr) *wire.Refusal {
	from := host(addr)
	perMinute := d.limits.Registrations
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	limiter := d.registrar[from]
	if limiter == nil {
		if len(d.registrar) >= maxRegistrars {
			d.dropIdle(now)
		}
		if len(d.registrar) >= maxRegistrars {
			return tooManyRegistrations(time.Minute)
		}
		limiter = rate.NewLimiter(rate.Limit(float64(perMinute)/60), perMinute)
		d.registrar[from] = limiter
	}
	if limiter.TokensAt(now) >= 1 && !d.all.AllowN(now, 1) {
		return tooManyRegistrations(time.Second) // this address is not the reason
	}
	if limiter.AllowN(now, 1) {
		return nil
	}
	return tooManyRegistrations(time.Minute / time.Duration(perMinute))
}

// again counts a login of an identity that was proved, or refuses one too many. Before
// the proof anybody could use the limit to keep a client away.
func (d *doorkeeper) again(client int64) *wire.Refusal {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	limiter := d.clients[client]
	if limiter == nil {
		if len(d.clients) >= maxLoginsKept {
			for id, l := range d.clients {
				if l.TokensAt(now) >= loginsAtOnce {
					delete(d.clients, id)
				}
			}
		}
		if len(d.clients) >= maxLoginsKept {
			return nil // other limits bound so many identities
		}
		limiter = rate.NewLimiter(loginsPerSecond, loginsAtOnce)
		d.clients[client] = limiter
	}
	if limiter.AllowN(now, 1) {
		return nil
	}
	r := wire.Refuse(wire.TooMany)
	r.RetryAfter = time.Second
	return r
}

// dropIdle drops the addresses that have all of their registrations again.
func (d *doorkeeper) dropIdle(now time.Time) {
	for from, limiter := range d.registrar {
		if limiter.TokensAt(now) >= float64(limiter.Burst()) {
			delete(d.registrar, from)
		}
	}
}

func tooManyRegistrations(after time.Duration) *wire.Refusal {
	r := wire.Refuse(wire.RegistrationLimited)
	r.RetryAfter = after
	return r
}

// count gives the number of logins under way.
func (d *doorkeeper) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}
