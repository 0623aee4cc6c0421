package control

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"
)

// forRecords is a certificate of the key that control planes sign read models and the
// configuration feed with.
const forRecords purpose = "records"

func recordsURI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: uriControl, Path: recordsPath}
}

// SignRecords vouches for the key that signs records. It proves nothing in TLS.
func (a *Authority) SignRecords(public ed25519.PublicKey) (*x509.Certificate, error) {
	return a.sign(public, forRecords, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "tunnox records"}
		c.URIs = []*url.URL{recordsURI()}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} // and nothing that TLS takes
	})
}

// VerifyRecords gives the key that a certificate of SignRecords vouches for.
func VerifyRecords(der []byte, roots *x509.CertPool, now time.Time) (ed25519.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of records: %w", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}); err != nil {
		return nil, fmt.Errorf("verify the certificate of records: %w", err)
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || len(cert.URIs) != 1 || cert.URIs[0].String() != recordsURI().String() {
		return nil, fmt.Errorf("%w: it does not vouch for records", ErrIdentity)
	}
	return public, nil
}
