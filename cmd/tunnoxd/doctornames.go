package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// certificateNoted is how long before its end a certificate is told of.
const certificateNoted = 14 * 24 * time.Hour

// certificates checks those that people keep valid: of public hosts, of this node; and
// those of agents, which pin a key.
func (e *exam) certificates() {
	pairs, err := e.cfg.certificatePairs()
	if err != nil {
		e.report.Fail("certificate", "correct the setting", "%v", err)
	}
	for _, pair := range pairs {
		certificate, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			e.report.Fail("certificate "+pair.Certificate, "give a certificate in PEM, its chain, and the key that belongs to it", "%v", err)
			continue
		}
		e.ends("certificate "+pair.Certificate, certificate.Leaf, "renew it and write the files anew; the server reads them by itself")
		e.covers(pair.Certificate, certificate.Leaf)
	}
	if e.cfg.NodeCert != "" {
		e.file("node certificate", e.cfg.NodeCert, "renew it, and start the forwarder again")
	}
	if e.cfg.ClusterCA != "" {
		e.file("cluster authority", e.cfg.ClusterCA, "get the file of a control plane: DATA/"+authorityFile)
	}
	own := filepath.Join(e.cfg.Data, "server.crt")
	if _, err := os.Stat(own); !errors.Is(err, fs.ErrNotExist) && e.cfg.Control == "" && e.cfg.State == "" {
		e.file("agents' certificate", own, "agents that pin the key do not mind; for others renew it with the same key")
	}
}

// file checks the first certificate of a file.
func (e *exam) file(check, path, do string) {
	text, err := os.ReadFile(path)
	if err != nil {
		e.report.Fail(check, "let the account of the server read the file", "%v", err)
		return
	}
	block, _ := pem.Decode(text)
	if block == nil {
		e.report.Fail(check, "give a certificate in PEM", "%s has none", path)
		return
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		e.report.Fail(check, "give a certificate in PEM", "%s: %v", path, err)
		return
	}
	e.ends(check, certificate, do)
}

func (e *exam) ends(check string, c *x509.Certificate, do string) {
	left := time.Until(c.NotAfter)
	text := fmt.Sprintf("for %s, until %s", strings.Join(namesOf(c), ", "), c.NotAfter.UTC().Format(time.DateOnly))
	switch {
	case left < 0:
		e.report.Fail(check, do, "ended %s ago, %s", left.Abs().Round(time.Hour), text)
	case time.Until(c.NotBefore) > 0:
		e.report.Fail(check, "set the clock of this machine, or wait", "begins on %s", c.NotBefore.UTC().Format(time.DateOnly))
	case left < certificateNoted:
		e.report.Note(check, do, "ends in %d days, %s", int(left.Hours()/24), text)
	default:
		e.report.Well(check, "%s", text)
	}
}

func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{c.Subject.CommonName}
	}
	return names
}

// covers tells whether a certificate is one for public hosts.
func (e *exam) covers(file string, c *x509.Certificate) {
	if domain := e.cfg.BaseDomain; domain != "" && c.VerifyHostname("any-host."+domain) != nil {
		e.report.Note("certificate "+file, "get one for *."+domain+", or others beside it", "it is not for *.%s, so browsers refuse public hosts", domain)
	}
	if host := e.cfg.APIHost; host != "" && c.VerifyHostname(host) != nil {
		e.report.Note("certificate "+file, "get one for "+host+", or others beside it", "it is not for %s, the host of the API", host)
	}
}

// names checks whether the names of public hosts lead here.
func (e *exam) names(ctx context.Context) {
	domain := e.cfg.BaseDomain
	if domain == "" || e.cfg.tryoutHosts {
		return
	}
	before := len(e.report.Findings)
	e.leadsHere(ctx, "dns "+domain, domain, "only the names below the domain are needed; a record for the domain itself helps people who try it")
	e.report.Soften(before)
	if host := e.cfg.APIHost; host != "" {
		e.leadsHere(ctx, "dns "+host, host, "add a DNS record for "+host+", the host of the API, with the address of this server")
	}
	some := strings.ToLower(rand.Text()[:10]) + "." + domain
	e.leadsHere(ctx, "dns *."+domain, some, "add a DNS record for *."+domain+" with the address of this server")
}

// leadsHere looks a name up, and compares with where visitors should come.
func (e *exam) leadsHere(ctx context.Context, check, name, do string) {
	ctx, cancel := context.WithTimeout(ctx, examLimit)
	defer cancel()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		e.report.Fail(check, do, "%v", err)
		return
	}
	texts, here := make([]string, len(all)), false
	public, _ := netip.ParseAddr(e.cfg.PublicAddress) // the zero value is no address of a name
	for i, a := range all {
		a = a.Unmap()
		texts[i] = a.String()
		here = here || ours(a) || a == public
	}
	leads := fmt.Sprintf("%s leads to %s", name, strings.Join(texts, ", "))
	if !here {
		e.report.Note(check, "this is right behind NAT or a load balancer that passes visitors on; otherwise correct the DNS record", "%s, which is no address of this machine", leads)
		return
	}
	e.report.Well(check, "%s", leads)
}
