package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"log/slog"

	"github.com/tunnox-net/tunnox/certs"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/ingress"
)

// visitorCertificates gives visitors of --https the certificates of their hosts: from
// files, or from the control plane for hosts that this forwarder serves. What strangers
// ask for beside that costs the control plane nothing.
type visitorCertificates struct {
	hosts  *hostServer
	files  *certs.Files         // nil: there are none
	source control.Certificates // nil: files only
	asked  *certs.Asked         // nil: files only
	log    *slog.Logger
}

// startVisitorCertificates reads the files, and prepares to ask a control plane.
func (p *process) startVisitorCertificates(hosts *hostServer, source control.Certificates) (*visitorCertificates, error) {
	v := &visitorCertificates{hosts: hosts, source: source, log: p.log.With("part", "certificates")}
	pairs, err := p.cfg.certificatePairs()
	if err != nil {
		return nil, err
	}
	if len(pairs) > 0 {
		if v.files, err = certs.OpenFiles(pairs, v.log); err != nil {
			return nil, err
		}
		p.registry.MustRegister(certificateEnds{v.files})
		p.run("certificates", func(ctx context.Context) error { v.files.Watch(ctx); return nil })
	}
	if source != nil {
		v.asked = certs.NewAsked(v.ask, v.log)
		p.atEnd("questions for certificates", func(context.Context) error { v.asked.Close(); return nil })
	}
	return v, nil
}

// Certificate has the form of [tls.Config.GetCertificate]. Without an error and a
// certificate crypto/tls says that the name is unknown.
func (v *visitorCertificates) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if v.files != nil {
		c, err := v.files.Certificate(hello)
		if err == nil || v.asked == nil {
			return c, err
		}
	}
	host, ok := ingress.Host(hello.ServerName)
	if !ok {
		return nil, nil
	}
	served, err := v.hosts.serves(hello.Context(), host, hello.Conn.RemoteAddr().String())
	if err != nil || !served {
		return nil, err
	}
	c, err := v.asked.Certificate(hello.Context(), host)
	if errors.Is(err, certs.ErrNoCertificate) {
		return nil, nil
	}
	return c, err
}

// ask asks the control plane, for [certs.NewAsked].
func (v *visitorCertificates) ask(ctx context.Context, host string) (*tls.Certificate, error) {
	c, err := v.source.HostCertificate(ctx, host)
	switch {
	case errors.Is(err, control.ErrCertificateOrdered):
		return nil, certs.ErrOrdered
	case domain.CodeOf(err) == control.CodeHostUnknown:
		return nil, certs.ErrNoCertificate
	case domain.CodeOf(err) == control.CodeCertificateFailed: // the control plane has logged why
	case err != nil && ctx.Err() == nil:
		v.log.Warn("there is no certificate for a host that is served here", "host", host, "error", err)
	}
	return c, err
}

// challenges answers certificate authorities at this forwarder, whichever control plane
// has made the order.
type challenges struct {
	hosts  *hostServer
	source control.Certificates
	log    *slog.Logger
}

// Content implements [ingress.Challenges].
func (c challenges) Content(ctx context.Context, host, token, visitor string) (string, bool) {
	challenge, ok := c.look(ctx, host, visitor)
	if !ok || subtle.ConstantTimeCompare([]byte(challenge.Token), []byte(token)) != 1 {
		return "", false
	}
	return challenge.Authorization, true
}

// Certificate implements [ingress.Challenges].
func (c challenges) Certificate(ctx context.Context, host, visitor string) (*tls.Certificate, error) {
	challenge, ok := c.look(ctx, host, visitor)
	if !ok {
		return nil, nil
	}
	return certs.ChallengeCertificate(host, challenge.Authorization)
}

// look asks for the challenge of a host that is served here. Strangers may ask, too, so
// that questions are counted.
func (c challenges) look(ctx context.Context, host, visitor string) (control.HostChallenge, bool) {
	served, err := c.hosts.serves(ctx, host, visitor)
	if err != nil || !served || !c.hosts.f.MayAsk(visitor) {
		return control.HostChallenge{}, false
	}
	challenge, err := c.source.HostChallenge(ctx, host)
	if err != nil && ctx.Err() == nil && domain.CodeOf(err) != control.CodeCertificatesOff {
		c.log.Warn("cannot ask for the answer to a certificate authority", "host", host, "error", err)
	}
	return challenge, err == nil && challenge.Authorization != ""
}

// serves reports whether a host is the base domain or the API's, or has a mapping over HTTP.
func (h *hostServer) serves(ctx context.Context, host, visitor string) (bool, error) {
	if host == h.domain || host == h.apiHost {
		return true, nil
	}
	name, ok := h.name(host)
	if !ok {
		return false, nil
	}
	return h.f.HasHost(ctx, name, domain.ProtocolHTTP, visitor)
}
