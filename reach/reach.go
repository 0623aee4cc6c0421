// Package reach decides how an agent gets to a server: over which carrier, through which
// proxy, and at which of the addresses that a name has.
//
// Its duty is that the agent gets through where anything gets through. It never gives up
// a carrier: what failed before is tried again, behind what works. Its limit: it begins
// sessions and does not keep them, which is package agent's work.
package reach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// Auto stands for all carriers: they are raced.
const Auto = "auto"

// Config is what a Dialer is made of.
type Config struct {
	// Carriers are all there are.
	Carriers transport.Carriers
	// Order are the schemes to use for an address without a scheme, the best first.
	Order []string
	// Dial says how the server is verified.
	Dial transport.DialConfig
	// Packets are the schemes of carriers that send UDP packets. They take one address of
	// a name at a time, and no proxy.
	Packets []string
	// Proxies opens connections for the other carriers. Nil dials directly.
	Proxies *Proxies
	// Direct looks up names for Packets; nil is the system's resolver.
	Direct *Direct
	// Network names the network that this machine is in; nil looks at the addresses of the
	// machine's interfaces.
	Network func() string
}

// Dialer begins sessions with servers. Its methods may be called concurrently.
type Dialer struct {
	carriers transport.Carriers
	order    []string
	packets  []string
	proxies  *Proxies
	direct   *Direct
	config   transport.DialConfig
	network  func() string

	mu    sync.Mutex
	last  map[string]string // by network: the scheme that worked last
	tries map[string]Try    // by scheme: the latest
}

// Try is what came of the latest attempt over a carrier.
type Try struct {
	Scheme string
	At     time.Time // when it ended
	Err    error     // why it gave no session; nil if it did
}

// New makes a Dialer.
func New(c Config) (*Dialer, error) {
	for _, scheme := range c.Order {
		if c.Carriers[scheme] == nil {
			return nil, fmt.Errorf("reach servers over %q: %w", scheme, transport.ErrScheme)
		}
	}
	if len(c.Order) == 0 {
		return nil, errors.New("reach servers: over which carrier?")
	}
	d := &Dialer{carriers: c.Carriers, order: c.Order, config: c.Dial, packets: c.Packets, proxies: c.Proxies, direct: c.Direct, network: c.Network, last: map[string]string{}, tries: map[string]Try{}}
	if d.network == nil {
		d.network = networkOf
	}
	if d.direct == nil {
		d.direct = new(Direct)
	}
	if d.proxies != nil {
		d.config.Dial = d.proxies.Dial
	} else if d.config.Dial == nil {
		d.config.Dial = d.direct.Dial
	}
	return d, nil
}

// Tries tells what came of the latest attempt over each carrier, in the order of schemes.
func (d *Dialer) Tries() (all []Try) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, scheme := range slices.Sorted(maps.Keys(d.tries)) {
		all = append(all, d.tries[scheme])
	}
	return all
}

// Dial begins a session with a server. If the address names no scheme, the carriers race:
// the one that worked last in this network has a head start, and the others follow it.
// The first session wins.
func (d *Dialer) Dial(ctx context.Context, server string) (transport.Session, error) {
	address, err := transport.ParseAddress(server)
	if err != nil {
		return nil, err
	}
	if strings.Contains(server, "://") {
		if _, err := d.carriers.Check(server); err != nil {
			return nil, err
		}
		s, err := d.over(ctx, address.Scheme, address.HostPort())
		d.note(ctx, Try{Scheme: address.Scheme, At: time.Now(), Err: err})
		return s, err
	}
	network := d.network()
	order, known := d.orderIn(network)
	lead := step
	if known {
		lead = headStart
	}
	failed := &RaceError{}
	s, err := race(ctx, len(order), lead, func(ctx context.Context, i int) (transport.Session, error) {
		return d.over(ctx, order[i], address.HostPort())
	}, func(e ended[transport.Session]) {
		try := Try{Scheme: order[e.which], At: e.at, Err: e.err}
		d.note(ctx, try)
		if try.Err == nil {
			d.worked(network, try.Scheme)
		} else {
			failed.Tries = append(failed.Tries, try)
		}
	})
	switch {
	case err == nil:
		return s, nil
	case len(failed.Tries) == 1:
		return nil, failed.Tries[0].Err
	}
	return nil, failed
}

// errProxy is why a carrier of packets is not used.
var errProxy = errors.New("the proxy for the server carries TCP only")

// over begins a session over one carrier.
func (d *Dialer) over(ctx context.Context, scheme, address string) (transport.Session, error) {
	dial := d.carriers[scheme]
	if !slices.Contains(d.packets, scheme) {
		return dial(ctx, address, d.config)
	}
	if d.proxies != nil {
		if through, err := d.proxies.For(address); err != nil || through != nil {
			return nil, errors.Join(errProxy, err)
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config := d.config
	config.ServerName = cmp.Or(config.ServerName, host)
	addresses := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, ip)
	} else if addresses, err = d.direct.lookup(ctx, host); err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	return race(ctx, len(addresses), step, func(ctx context.Context, i int) (transport.Session, error) {
		return dial(ctx, net.JoinHostPort(addresses[i].String(), port), config)
	}, nil)
}

// worked remembers the scheme that won in a network.
func (d *Dialer) worked(network, scheme string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last[network] = scheme
}

// orderIn is the order of schemes in a network, and whether the first is known to work.
func (d *Dialer) orderIn(network string) (order []string, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	order = slices.Clone(d.order)
	best, known := d.last[network]
	if i := slices.Index(order, best); i > 0 {
		order = slices.Insert(slices.Delete(order, i, i+1), 0, best)
	}
	return order, known
}

// note keeps what came of an attempt. One that was cut short by whoever asked for it, or
// because another was faster, says nothing.
func (d *Dialer) note(ctx context.Context, try Try) {
	if try.Err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries[try.Scheme] = try
}

// RaceError is why no carrier gave a session.
type RaceError struct{ Tries []Try }

// Error names each carrier with its reason, unless all have the same.
func (e *RaceError) Error() string {
	if same := slices.CompactFunc(slices.Clone(e.Tries), func(a, b Try) bool { return a.Err.Error() == b.Err.Error() }); len(same) == 1 {
		return same[0].Err.Error()
	}
	var b strings.Builder
	for i, try := range e.Tries {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "over %s: %v", try.Scheme, try.Err)
	}
	return b.String()
}

// Unwrap gives the reasons.
func (e *RaceError) Unwrap() (all []error) {
	for _, try := range e.Tries {
		all = append(all, try.Err)
	}
	return all
}
