package certs

import (
	"crypto/tls"
	"fmt"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// ChallengeCertificate makes the certificate with which a host answers the challenge
// TLS-ALPN-01 of a certificate authority (RFC 8737, section 3). It is of no use for
// anything else.
func ChallengeCertificate(host, authorization string) (*tls.Certificate, error) {
	c, err := acmez.TLSALPN01ChallengeCert(acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: host}, KeyAuthorization: authorization})
	if err != nil {
		return nil, fmt.Errorf("make the certificate for a challenge of %s: %w", host, err)
	}
	return c, nil
}
