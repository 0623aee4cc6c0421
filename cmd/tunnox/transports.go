package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/quic"
)

// carriers are the ways in which this program reaches a server. ws is used only where an
// address asks for it.
var carriers = transport.Carriers{
	transport.SchemeTLS: transport.DialTLS,
	transport.SchemeWSS: transport.DialWSS,
	transport.SchemeWS:  transport.DialWS,
	quic.Scheme:         quic.NewCarrier().Dial,
}

// transports are those that --transport names, the best first.
//
// TLS comes first although QUIC does not suffer from one lost packet for all streams: on
// good links TLS moves twice the bytes for the same CPU (docs/performance.md).
var transports = []string{transport.SchemeTLS, quic.Scheme, transport.SchemeWSS}

// transportNames lists the values of --transport.
func transportNames() string { return strings.Join(append([]string{reach.Auto}, transports...), ", ") }

// triesOf tells for the status what came of the latest attempts.
func triesOf(way *reach.Dialer) func() []agent.TransportStatus {
	return func() (all []agent.TransportStatus) {
		for _, try := range way.Tries() {
			s := agent.TransportStatus{Transport: try.Scheme, At: try.At}
			if try.Err != nil {
				s.Error = try.Err.Error()
			}
			all = append(all, s)
		}
		return all
	}
}

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
	return reach.New(reach.Config{Carriers: carriers, Order: order, Packets: []string{quic.Scheme}, Dial: verify, Proxies: proxies})
}
