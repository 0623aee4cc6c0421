package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/transport"
)

// identity is the certificate of a server for agents, and the pin for agents.
type identity struct {
	certificate func() (*tls.Certificate, error)
	pin         transport.Pin
}

// ownIdentity reads the identity in the data directory, or makes one there. Replace
// server.crt and server.key to use a certificate that an authority signed. The pin is
// that of the key, so agents accept a renewed certificate with the same key.
func (p *process) ownIdentity() (identity, error) {
	var hosts []string
	for address := range strings.SplitSeq(reachable(p.cfg.AdvertiseAgents, p.sockets.agents.Addr()), ",") {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return identity{}, err
		}
		hosts = append(hosts, host)
	}
	certificate, err := transport.LoadOrCreateIdentity(p.dir.file("server.crt"), p.dir.file("server.key"), hosts...)
	if err != nil {
		return identity{}, err
	}
	return identity{certificate: func() (*tls.Certificate, error) { return &certificate, nil }, pin: transport.PinOf(certificate.Leaf)}, nil
}

// clusterIdentity gets a certificate of the cluster's authority for the names at which
// agents reach this server, and keeps it valid. Agents pin the authority, so one join
// line is valid for every server of the cluster.
func (p *process) clusterIdentity(ctx context.Context, trust control.Trust, certify func(ctx context.Context, names ...string) (control.Issued, error)) (identity, error) {
	roots, err := trust.Roots()
	if err != nil {
		return identity{}, err
	}
	names := agentsNames(p.cfg.AdvertiseAgents, p.sockets.agents.Addr())
	renewer, err := control.NewRenewer(ctx, control.RenewerConfig{
		Issue: func(ctx context.Context, _ *control.Issued) (control.Issued, error) { return certify(ctx, names...) },
		File:  p.dir.file("agents.pem"), Fits: fitsNames(names, roots),
		Name: "agents", Log: p.log.With("part", "certificate"), Registry: p.registry})
	if err != nil {
		return identity{}, err
	}
	p.alarms.add(alarmCertificates, renewer.Check)
	p.run("agents' certificate", renewer.Run)
	authorities := renewer.Authorities()
	if len(authorities) == 0 {
		return identity{}, errors.New("the certificate for agents came without an authority")
	}
	return identity{certificate: renewer.Certificate, pin: transport.PinOf(authorities[0])}, nil
}

// fitsNames reports whether a stored certificate is of this cluster and valid for the
// names.
func fitsNames(names []string, roots *x509.CertPool) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool {
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err == nil && !slices.ContainsFunc(names, func(name string) bool { return c.VerifyHostname(name) != nil })
	}
}

// maxAgentsNames is how many host names and addresses a certificate may have.
const maxAgentsNames = 32

// agentsNames gives the names at which agents may reach a listener: the advertised
// names, the bound address, this machine's name, and loopback for agents on this
// machine. The most likely come first.
func agentsNames(advertise string, bound net.Addr) []string {
	var names []string
	add := func(name string) {
		if name != "" && len(names) < maxAgentsNames && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, address := range append(strings.Split(advertise, ","), reachable("", bound)) {
		if host, _, err := net.SplitHostPort(address); err == nil {
			add(withoutZone(host))
		}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		add(name)
	}
	if host, err := os.Hostname(); err == nil && dnsName(host) {
		add(host)
	}
	if host, _, err := net.SplitHostPort(bound.String()); err == nil && unspecified(host) {
		for _, ip := range ownIPs() {
			add(ip.String())
		}
	}
	return names
}

// dnsName refuses names that cannot be a host name in a certificate.
func dnsName(name string) bool {
	for _, c := range []byte(name) {
		if c != '.' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return name != ""
}
