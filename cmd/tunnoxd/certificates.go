package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/tunnox-net/tunnox/certs/acme"
	"github.com/tunnox-net/tunnox/control"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
)

// letsEncrypt is the authority of --acme without --acme-ca.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// certificateFolder is where the embedded form stores what the authority gave.
const certificateFolder = "certificates"

// startCertificates begins to keep the certificates of public hosts, when --acme says
// so; without it there are none, which is nil.
func (p *process) startCertificates(ctx context.Context, b *backend, cp *controlPlane, key apiKey) (control.Certificates, error) {
	switch {
	case p.cfg.ACME == "" && (p.cfg.ACMECA != "" || p.cfg.ACMERoot != "" || p.cfg.ACMEDNSCommand != ""):
		return nil, usageError{errors.New("--acme-ca, --acme-root and --acme-dns-command need --acme")}
	case p.cfg.ACME == "":
		return nil, nil
	}
	roots, err := p.cfg.acmeRoots()
	if err != nil {
		return nil, err
	}
	command := p.cfg.ACMEDNSCommand
	if command != "" {
		if command, err = exec.LookPath(command); err != nil {
			return nil, usageError{fmt.Errorf("--acme-dns-command: %w", err)}
		}
	}
	log := p.log.With("part", "certificates")
	var storage certmagic.Storage = &certmagic.FileStorage{Path: p.dir.file(certificateFolder)}
	if b.shared != nil {
		var before [][]byte
		if p.cfg.apiKeyBefore != "" {
			before = append(before, []byte(p.cfg.apiKeyBefore))
		}
		stored, err := controlpostgres.OpenCertificates(ctx, p.cfg.Postgres, log, []byte(key.secret), before...)
		if err != nil {
			return nil, err
		}
		p.atEnd("storage of certificates", func(context.Context) error { stored.Close(); return nil })
		storage = stored
	}
	metrics := acme.NewMetrics()
	p.registry.MustRegister(metrics)
	desk := &certificateDesk{wildcards: command != "", nodes: b.directory, ingresses: cp.localCommander("").IngressView}
	desk.keeper = acme.Open(acme.Config{Directory: p.cfg.acmeDirectory(), Contact: p.cfg.acmeContact(), Roots: roots, Storage: storage,
		Wanted: desk.ordered, DNSCommand: command, ByDNS: desk.ofBase, Logger: log, Metrics: metrics})
	p.atEnd("orders of certificates", func(context.Context) error { desk.keeper.Close(); return nil })
	p.run("stored certificates", desk.keeper.Run)
	return desk, nil
}

// certificateDesk gives the certificates of hosts that somebody has, and of base
// domains.
type certificateDesk struct {
	keeper    *acme.Keeper
	wildcards bool // base domains have them, by DNS-01
	nodes     directory.Nodes
	ingresses func(ctx context.Context, what domain.Ingress) (domain.IngressView, error) // from the log
}

// HostCertificate implements [control.Certificates].
func (d *certificateDesk) HostCertificate(ctx context.Context, host string) (*tls.Certificate, error) {
	name, err := d.subject(ctx, host)
	if err != nil {
		return nil, err
	}
	var c *tls.Certificate
	if name == "" {
		err = acme.ErrUnwanted
	} else {
		c, err = d.keeper.Certificate(ctx, name)
	}
	switch {
	case errors.Is(err, acme.ErrUnwanted):
		return nil, &domain.Error{Code: control.CodeHostUnknown, Message: "Nobody has the host " + host + ", so there is no certificate for it."}
	case errors.Is(err, acme.ErrOrdered):
		return nil, control.ErrCertificateOrdered
	case errors.Is(err, acme.ErrFailed): // the control plane's log says why
		return nil, &domain.Error{Code: control.CodeCertificateFailed, Message: "The certificate authority gave no certificate for " + host + "."}
	}
	return c, err
}

// HostChallenge implements [control.Certificates].
func (d *certificateDesk) HostChallenge(ctx context.Context, host string) (control.HostChallenge, error) {
	c, err := d.keeper.Challenge(ctx, host)
	if errors.Is(err, acme.ErrNoChallenge) {
		err = nil
	}
	return control.HostChallenge{Token: c.Token, Authorization: c.Authorization}, err
}

// subject gives the name whose certificate a host shows, "" for a host that nobody has:
// its own, or the wildcard of its base domain.
func (d *certificateDesk) subject(ctx context.Context, host string) (string, error) {
	if !d.wildcards {
		return host, nil // the keeper asks who wants it
	}
	nodes, err := d.nodes.Nodes(ctx)
	if err != nil {
		return "", err
	}
	base := baseOf(nodes, host)
	if base == "" || base == host {
		return host, nil
	}
	// Names that nobody has are refused under a wildcard too.
	if wanted, err := d.wanted(ctx, host); err != nil || !wanted {
		return "", err
	}
	return "*." + base, nil
}

// ordered reports whether a certificate of a name may be ordered, or kept.
func (d *certificateDesk) ordered(ctx context.Context, name string) (bool, error) {
	if !d.wildcards {
		return d.wanted(ctx, name)
	}
	nodes, err := d.nodes.Nodes(ctx)
	if err != nil {
		return false, err
	}
	if base := baseOf(nodes, strings.TrimPrefix(name, "*.")); base != "" {
		return name == base || name == "*."+base, nil // a host below it has the wildcard
	}
	return d.wanted(ctx, name)
}

// ofBase reports whether a name is proved by the DNS of a base domain.
func (d *certificateDesk) ofBase(ctx context.Context, name string) (bool, error) {
	nodes, err := d.nodes.Nodes(ctx)
	return baseOf(nodes, strings.TrimPrefix(name, "*.")) != "", err
}

// baseOf gives the base domain that a host is, or is one label below; "" for none.
func baseOf(nodes []directory.Node, host string) string {
	for _, base := range baseDomains(nodes)[domain.ProtocolHTTP] {
		if label, ok := strings.CutSuffix(host, "."+base); host == base || ok && label != "" && !strings.Contains(label, ".") {
			return base
		}
	}
	return ""
}

// wanted reports whether a certificate of a host may be ordered: it is a base domain
// that forwarders serve, the host of the API, or a public host below it or of a verified domain, with a mapping over HTTP. The log
// is asked, which is never behind.
func (d *certificateDesk) wanted(ctx context.Context, host string) (bool, error) {
	nodes, err := d.nodes.Nodes(ctx)
	if err != nil {
		return false, err
	}
	if slices.Contains(apiHosts(nodes), host) {
		return true, nil
	}
	name := host // of a domain that its user has verified
	for _, base := range baseDomains(nodes)[domain.ProtocolHTTP] {
		if host == base {
			return true, nil
		}
		if label, ok := strings.CutSuffix(host, "."+base); ok && label != "" && !strings.Contains(label, ".") {
			name = label
		}
	}
	if name == host && !strings.Contains(host, ".") {
		return false, nil // a label alone is no host
	}
	view, err := d.ingresses(ctx, domain.Ingress{Host: name})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(view.Mappings, func(m domain.Versioned[domain.Mapping]) bool {
		return m.State.Active() && m.State.Protocol == domain.ProtocolHTTP
	}), nil
}

// checkACME gives what is wrong with each of the settings of --acme.
func (c *config) checkACME() (errs []error) {
	if c.ACME != "" && c.ACME != "on" && (strings.Count(c.ACME, "@") != 1 || strings.ContainsAny(c.ACME, " ,<>:") || strings.HasPrefix(c.ACME, "@") || strings.HasSuffix(c.ACME, "@")) {
		errs = append(errs, fmt.Errorf("--acme: %q is neither an e-mail address nor on", c.ACME))
	}
	if u, err := url.Parse(c.ACMECA); c.ACMECA != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		errs = append(errs, fmt.Errorf("--acme-ca: %q is not a URL such as %s", c.ACMECA, letsEncrypt))
	}
	return errs
}

func (c *config) acmeDirectory() string {
	if c.ACMECA == "" {
		return letsEncrypt
	}
	return c.ACMECA
}

func (c *config) acmeContact() string {
	if c.ACME == "on" {
		return ""
	}
	return c.ACME
}

// acmeRoots gives the certificates of --acme-root, nil for those of the system.
func (c *config) acmeRoots() (*x509.CertPool, error) {
	if c.ACMERoot == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.ACMERoot)
	if err != nil {
		return nil, fmt.Errorf("--acme-root: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--acme-root: %s has no certificate in PEM", c.ACMERoot)
	}
	return roots, nil
}
