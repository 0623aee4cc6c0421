package transport

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Address is the address of a server, with the carrier to use. As text it is
// scheme://host:port; without a scheme it is [SchemeTLS].
type Address struct{ Scheme, Host, Port string }

// SchemeTLS is TLS 1.3 over TCP.
const SchemeTLS = "tls"

// ParseAddress reads an address. It does not check whether the scheme is known.
func ParseAddress(text string) (Address, error) {
	a := Address{Scheme: SchemeTLS}
	rest := text
	if scheme, behind, ok := strings.Cut(text, "://"); ok {
		a.Scheme, rest = strings.ToLower(scheme), behind
	}
	var err error
	if a.Host, a.Port, err = net.SplitHostPort(rest); err != nil || a.Host == "" || a.Scheme == "" {
		return Address{}, fmt.Errorf("address %q: it must be HOST:PORT or SCHEME://HOST:PORT", text)
	}
	if port, err := strconv.ParseUint(a.Port, 10, 16); err != nil || port == 0 {
		return Address{}, fmt.Errorf("address %q: the port must be a number from 1 to 65535", text)
	}
	return a, nil
}

// HostPort gives the host and port to dial.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, a.Port) }

// String writes the address as ParseAddress reads it, without the scheme where that
// is SchemeTLS.
func (a Address) String() string {
	if a.Scheme == SchemeTLS {
		return a.HostPort()
	}
	return a.Scheme + "://" + a.HostPort()
}

// DialFunc begins a session with the server at an address, host:port.
type DialFunc func(ctx context.Context, address string, config DialConfig) (Session, error)

// Carriers are the ways to reach a server, by scheme.
type Carriers map[string]DialFunc

// ErrScheme: there is no carrier for the address's scheme.
var ErrScheme = errors.New("transport: no such carrier")

// Check reads the address and checks that there is a carrier for its scheme.
func (c Carriers) Check(text string) (Address, error) {
	a, err := ParseAddress(text)
	if err == nil && c[a.Scheme] == nil {
		err = fmt.Errorf("address %q: %w: %s; known are %s", text, ErrScheme, a.Scheme,
			strings.Join(slices.Sorted(maps.Keys(c)), ", "))
	}
	return a, err
}

// Dial begins a session with the server at an address, over the carrier that its scheme
// names.
func (c Carriers) Dial(ctx context.Context, text string, config DialConfig) (Session, error) {
	a, err := c.Check(text)
	if err != nil {
		return nil, err
	}
	return c[a.Scheme](ctx, a.HostPort(), config)
}

// SchemeOf is the scheme of the carrier that a session goes over; "" if the carrier does
// not tell.
func SchemeOf(s Session) string {
	if named, ok := s.(interface{ Scheme() string }); ok {
		return named.Scheme()
	}
	return ""
}
