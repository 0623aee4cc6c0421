package reach

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// Resolver looks names up. Every attempt asks it anew: the addresses of a server may have
// changed since.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Direct opens connections without a proxy.
type Direct struct {
	// Resolver is the system's if nil.
	Resolver Resolver
	// Dialer opens the connection to one address.
	Dialer net.Dialer
}

// Dial opens a connection to host:port. All addresses of the name are tried, those of IPv6
// and IPv4 in turn, each a little after the one before, and the first connection wins (RFC
// 8305). Package net does this with the families only: behind one dead address of two,
// an agent would wait for its time-out.
func (d *Direct) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.Dialer.DialContext(ctx, network, address)
	}
	addresses, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var faults []error
	conn, err := race(ctx, len(addresses), step, func(ctx context.Context, i int) (net.Conn, error) {
		return d.Dialer.DialContext(ctx, network, net.JoinHostPort(addresses[i].String(), port))
	}, func(e ended[net.Conn]) {
		if e.err != nil {
			faults = append(faults, e.err)
		}
	})
	if err != nil {
		return nil, oneOf(faults)
	}
	return conn, nil
}

// oneOf is the only error, or one that stands for all.
func oneOf(faults []error) error {
	if len(faults) == 1 {
		return faults[0]
	}
	return &addressesError{faults}
}

// addressesError is why no address of a name could be dialled.
type addressesError struct{ faults []error }

func (e *addressesError) Error() string {
	return fmt.Sprintf("none of %d addresses answers: %v", len(e.faults), e.faults[0])
}

func (e *addressesError) Unwrap() []error { return e.faults }

// lookup returns the addresses of a name, IPv6 and IPv4 in turn.
func (d *Direct) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	all, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var families [2][]netip.Addr // the family that the resolver prefers comes first
	for _, a := range all {
		a = a.Unmap()
		i := 0
		if a.Is4() != all[0].Unmap().Is4() {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	var turns []netip.Addr
	for len(families[0])+len(families[1]) > 0 {
		for i, f := range families {
			if len(f) > 0 {
				turns = append(turns, f[0])
				families[i] = f[1:]
			}
		}
	}
	if len(turns) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return turns, nil
}
