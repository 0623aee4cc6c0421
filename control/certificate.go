package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// The certificates of public hosts are ordered and kept by control planes. A forwarder
// asks for one when a visitor comes, and keeps it in memory only.

// HostChallenge is what the certificate authority wants to see at a host; empty for
// nothing.
type HostChallenge struct {
	Token         string // the last element of the path of HTTP-01
	Authorization string // the content of HTTP-01; TLS-ALPN-01 has its hash
}

// Certificates is where a control plane has the certificates of public hosts.
type Certificates interface {
	// HostCertificate gives the certificate of a host that somebody has, with its key.
	// Its errors are ErrCertificateOrdered and those with the codes below.
	HostCertificate(ctx context.Context, host string) (*tls.Certificate, error)
	// HostChallenge gives what the authority wants to see at a host now.
	HostChallenge(ctx context.Context, host string) (HostChallenge, error)
}

// ErrCertificateOrdered: the certificate is being ordered. Ask again in a moment.
var ErrCertificateOrdered = errors.New("control: the certificate is being ordered")

// Refusals of certificates.
const (
	CodeCertificatesOff   domain.Code = "certificates_off"   // the control plane orders none
	CodeHostUnknown       domain.Code = "host_unknown"       // nobody has the host
	CodeCertificateFailed domain.Code = "certificate_failed" // the authority gave none
)

// orderWait is how long a call waits for a certificate that is being ordered: shorter
// than an attempt of a client, because a call that takes longer counts as lost.
const orderWait = time.Second

// HostCertificate gives the calling node the certificate of a public host.
func (s *state) HostCertificate(ctx context.Context, in *controlpb.HostWant) (*controlpb.HostCertificateAnswer, error) {
	if err := s.answerable(in.Host); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	c, err := s.config.Certificates.HostCertificate(ctx, in.Host)
	if errors.Is(err, ErrCertificateOrdered) {
		return &controlpb.HostCertificateAnswer{Ordered: true}, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("send the key of %s: %w", in.Host, err)
	}
	return &controlpb.HostCertificateAnswer{Chain: c.Certificate, Key: key}, nil
}

// HostChallenge gives the calling node what the authority wants to see at a host.
func (s *state) HostChallenge(ctx context.Context, in *controlpb.HostWant) (*controlpb.HostChallengeAnswer, error) {
	if err := s.answerable(in.Host); err != nil {
		return nil, err
	}
	c, err := s.config.Certificates.HostChallenge(ctx, in.Host)
	return &controlpb.HostChallengeAnswer{Token: c.Token, Authorization: c.Authorization}, err
}

// answerable refuses what cannot be answered.
func (s *state) answerable(host string) error {
	switch {
	case s.config.Certificates == nil:
		return &domain.Error{Code: CodeCertificatesOff, Message: "This control plane orders no certificates. Start it with --acme EMAIL, or give the forwarder files with --certificate."}
	case host == "" || len(host) > maxHostLength:
		return invalid("host", fmt.Sprintf("must have 1 to %d characters, has %d", maxHostLength, len(host)))
	}
	return nil
}

// HostCertificate gives the certificate of a public host, with its key.
func (c *Client) HostCertificate(ctx context.Context, host string) (certificate *tls.Certificate, err error) {
	err = c.do(ctx, "HostCertificate", func(ctx context.Context) error {
		answer, err := c.state.HostCertificate(ctx, &controlpb.HostWant{Host: host})
		if err == nil {
			certificate, err = certificateOf(answer)
		}
		return err
	})
	if err == nil && certificate == nil {
		err = ErrCertificateOrdered
	}
	return certificate, err
}

// certificateOf reads an answer, nil for a certificate that is being ordered.
func certificateOf(answer *controlpb.HostCertificateAnswer) (*tls.Certificate, error) {
	if answer.GetOrdered() {
		return nil, nil
	}
	if len(answer.GetChain()) == 0 {
		return nil, errors.New("the control plane gave an empty certificate")
	}
	leaf, err := x509.ParseCertificate(answer.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("read the certificate of a host: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(answer.Key)
	if err != nil {
		return nil, fmt.Errorf("read the key of a host: %w", err)
	}
	return &tls.Certificate{Certificate: answer.Chain, PrivateKey: key, Leaf: leaf}, nil
}

// HostChallenge gives what the authority wants to see at a host now.
func (c *Client) HostChallenge(ctx context.Context, host string) (challenge HostChallenge, err error) {
	err = c.do(ctx, "HostChallenge", func(ctx context.Context) error {
		answer, err := c.state.HostChallenge(ctx, &controlpb.HostWant{Host: host})
		challenge = HostChallenge{Token: answer.GetToken(), Authorization: answer.GetAuthorization()}
		return err
	})
	return challenge, err
}
