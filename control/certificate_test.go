package control

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// cabinet has the certificate of one host, or orders it first.
type cabinet struct {
	certificate *tls.Certificate
	ordered     atomic.Bool // the order takes longer than anybody waits
}

func (c *cabinet) HostCertificate(ctx context.Context, host string) (*tls.Certificate, error) {
	if host != "shop.example.org" {
		return nil, &domain.Error{Code: CodeHostUnknown, Message: "Nobody has it."}
	}
	if c.ordered.Load() {
		<-ctx.Done()
		return nil, ErrCertificateOrdered
	}
	return c.certificate, nil
}

func (c *cabinet) HostChallenge(_ context.Context, host string) (HostChallenge, error) {
	if host != "shop.example.org" {
		return HostChallenge{}, nil
	}
	return HostChallenge{Token: "token", Authorization: "token.print"}, nil
}

// A forwarder gets certificates with their keys, and the answers to challenges. That an
// order takes time is an answer, and no sign that the control plane is away.
func TestHostCertificatesCrossTheWire(t *testing.T) {
	p := newPlane(t)
	own, err := p.authority.IssueState()
	must(t, err)
	has := &cabinet{certificate: &own.Certificate}
	s := p.serve("", func(c *ServerConfig) { c.Certificates = has })
	c := p.dial([]string{s.address}, func(c *Config) { c.CircuitFailures = 1 })
	got, err := c.HostCertificate(t.Context(), "shop.example.org")
	must(t, err)
	if !got.Leaf.Equal(own.Certificate.Leaf) || len(got.Certificate) != len(own.Certificate.Certificate) {
		t.Error("the forwarder gets another certificate")
	}
	if key, ok := own.Certificate.PrivateKey.(interface{ Equal(x any) bool }); ok && !key.Equal(got.PrivateKey) {
		t.Error("the forwarder gets another key")
	}
	has.ordered.Store(true)
	for range 2 {
		if _, err := c.HostCertificate(t.Context(), "shop.example.org"); !errors.Is(err, ErrCertificateOrdered) {
			t.Errorf("while it is ordered: %v", err)
		}
	}
	_, err = c.HostCertificate(t.Context(), "nobody.example.org")
	wantCode(t, err, CodeHostUnknown)
	for _, host := range []string{"", string(make([]byte, 300))} {
		_, err = c.HostCertificate(t.Context(), host)
		wantCode(t, err, domain.CodeInvalid)
	}
	challenge, err := c.HostChallenge(t.Context(), "shop.example.org")
	must(t, err)
	if want := (HostChallenge{"token", "token.print"}); challenge != want {
		t.Errorf("the challenge is %+v", challenge)
	}
	challenge, err = c.HostChallenge(t.Context(), "nobody.example.org")
	if err != nil || challenge != (HostChallenge{}) {
		t.Errorf("a host without challenge: %+v, %v", challenge, err)
	}
}

// A control plane without --acme says so.
func TestControlPlaneWithoutCertificates(t *testing.T) {
	p := newPlane(t)
	c := p.dial([]string{p.serve("").address})
	_, err := c.HostCertificate(t.Context(), "shop.example.org")
	wantCode(t, err, CodeCertificatesOff)
	_, err = c.HostChallenge(t.Context(), "shop.example.org")
	wantCode(t, err, CodeCertificatesOff)
}
