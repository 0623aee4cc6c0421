package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
)

// carriers are the ways in which this program reaches a server. ws is used only where an
// address asks for it.
var carriers = transport.Carriers{
	transport.SchemeTLS: transport.DialTLS,
	transport.SchemeWSS: transport.DialWSS,
	transport.SchemeWS:  transport.DialWS,
}

// transports are those that --transport names, the best first.
var transports = []string{transport.SchemeTLS, transport.SchemeWSS}

// transportNames lists what --transport takes.
func transportNames() string { return strings.Join(append([]string{reach.Auto}, transports...), ", ") }

// dialer reaches servers over the transport that --transport names.
func dialer(s surroundings, name string, verify transport.DialConfig) (*reach.Dialer, error) {
	order := transports
	switch {
	case slices.Contains(transports, name):
		order = []string{name}
	case name != reach.Auto:
		return nil, fmt.Errorf("--transport %q is not one of %s", name, transportNames())
	}
	roots := verify.Roots
	if roots == nil {
		roots = verify.Front
	}
	proxies, err := reach.ProxiesFrom(s.variable, new(reach.Direct).Dial, roots)
	if err != nil {
		return nil, err
	}
	verify.Dial = proxies.Dial
	return reach.New(reach.Config{Carriers: carriers, Order: order, Dial: verify})
}
