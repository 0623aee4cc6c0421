package main

import (
	"crypto/tls"
	"net"

	"github.com/tunnox-net/tunnox/transport"
)

// identity is what the server proves itself to agents with. Replace server.crt
// and server.key to use a certificate that an authority signed; the pin is that
// of the key, so that a renewed certificate with the same key keeps its agents.
type identity struct {
	certificate tls.Certificate
	pin         transport.Pin
}

// loadIdentity reads the identity in the data directory, or makes one there.
func (p *process) loadIdentity() (identity, error) {
	host, _, err := net.SplitHostPort(reachable(p.cfg.Advertise, p.sockets.agents.Addr()))
	if err != nil {
		return identity{}, err
	}
	certificate, err := transport.LoadOrCreateIdentity(p.dir.file("server.crt"), p.dir.file("server.key"), host)
	if err != nil {
		return identity{}, err
	}
	return identity{certificate, transport.PinOf(certificate.Leaf)}, nil
}
