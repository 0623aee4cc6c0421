package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

// What a server without settings offers to visitors of its own machine, so that
// "tunnox http" and "tunnox tcp" work at once. Nobody else reaches it: what is open to a
// network is for its owner to say.
const (
	tryoutHTTP    = "127.0.0.1:8081"
	tryoutTLS     = "127.0.0.1:8443"
	tryoutDomain  = "localhost" // browsers and curl take every name below it for this machine, RFC 6761
	tryoutPorts   = "20000-20099"
	tryoutAddress = "127.0.0.1"
)

// The settings of public hosts and of public ports.
var (
	hostSettings = []string{"http", "https", "http3", "base-domain", "advertise-http", "certificate", "certificate-key", "acme", "tls", "advertise-tls", "api-host"}
	portSettings = []string{"public-ports", "public-address"}
)

// given tells that one of the settings was set, if only to nothing.
func given(flags *pflag.FlagSet, settings []string) bool {
	return slices.ContainsFunc(settings, flags.Changed)
}

// tryOut completes the settings of a server that keeps everything in --data. A part of a
// cluster gets nothing: another part may serve visitors.
func (c *config) tryOut() {
	if c.Postgres != "" {
		return
	}
	if !c.hostsGiven {
		c.HTTP, c.TLS, c.BaseDomain, c.tryoutHosts = tryoutHTTP, tryoutTLS, tryoutDomain, true
	}
	if !c.portsGiven {
		c.PublicPorts, c.PublicAddress, c.tryoutPorts = tryoutPorts, tryoutAddress, true
	}
}

// listenTryout opens an address for visitors that nobody asked for. If it is in use, any
// free port will do.
func listenTryout(address string) (net.Listener, error) {
	l, err := listenTCP(address)
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = listenTCP(net.JoinHostPort(tryoutAddress, "0"))
	}
	return l, err
}

// visitorLines say where visitors come in, and how others can be let in.
func (p *process) visitorLines() string {
	var b strings.Builder
	if url := p.apiHostURL(); url != "" {
		fmt.Fprintf(&b, "  API, TLS   %s\n", url)
	}
	if p.sockets.http != nil || p.sockets.https != nil {
		fmt.Fprintf(&b, "  Hosts      %s", p.hostsURL())
		if p.cfg.tryoutHosts {
			b.WriteString(" (for this machine; for others: --http :80 --base-domain YOUR.DOMAIN)")
		}
		b.WriteByte('\n')
	}
	if url := p.tlsURL(); url != "" {
		fmt.Fprintf(&b, "  TLS        %s (passed through to services with certificates of their own)\n", url)
	}
	if p.cfg.PublicPorts != "" {
		fmt.Fprintf(&b, "  Ports      %s:%s", p.cfg.publicHost(), p.cfg.PublicPorts)
		if p.cfg.tryoutPorts {
			b.WriteString(" (for this machine; for others: --public-ports 20000-20099)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
