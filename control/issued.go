package control

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/tunnox-net/tunnox/control/controlpb"
)

// Blocks of a PEM file. The last kind is for trusted authorities. It differs from the
// certificates of a chain, because not every presented certificate is trusted.
const (
	blockKey         = "PRIVATE KEY"
	blockCertificate = "CERTIFICATE"
	blockAuthority   = "TRUSTED CERTIFICATE"
)

// Issued is an identity: a certificate with its key, and the authorities that its owner
// trusts.
type Issued struct {
	Certificate tls.Certificate // Leaf is set; the chain ends with the authority
	Authorities []*x509.Certificate
}

// roots gives a pool of the trusted authorities.
func (i Issued) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range i.Authorities {
		pool.AddCert(a)
	}
	return pool
}

// save writes the identity to a file that only its owner can read. It is one file, so
// that key and certificate always match.
func (i Issued) save(file string) error {
	key, err := x509.MarshalPKCS8PrivateKey(i.Certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: key})
	for _, der := range i.Certificate.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})...)
	}
	for _, a := range i.Authorities {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blockAuthority, Bytes: a.Raw})...)
	}
	return writeSecret(file, text)
}

// loadIssued reads what save wrote.
func loadIssued(file string) (Issued, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Issued{}, fmt.Errorf("load identity: %w", err)
	}
	key, chain, authorities, err := readPEM(text)
	switch {
	case err != nil:
	case key == nil || len(chain) == 0 || len(authorities) == 0:
		err = errors.New("the file is incomplete")
	case !matches(key, chain[0]):
		err = errors.New("the key does not belong to the certificate")
	}
	if err != nil {
		return Issued{}, fmt.Errorf("load identity from %s: %w", file, err)
	}
	return together(key, chain, authorities), nil
}

func together(key crypto.Signer, chain, authorities []*x509.Certificate) Issued {
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return Issued{Certificate: c, Authorities: authorities}
}

func readPEM(text []byte) (key crypto.Signer, chain, authorities []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			if len(bytes.TrimSpace(text)) > 0 {
				return nil, nil, nil, errors.New("a part of the file is not PEM")
			}
			return key, chain, authorities, nil
		}
		if block.Type == blockKey {
			private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("read key: %w", err)
			}
			var ok bool
			if key, ok = private.(crypto.Signer); !ok {
				return nil, nil, nil, fmt.Errorf("a %T cannot sign", private)
			}
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read certificate: %w", err)
		}
		if block.Type == blockAuthority {
			authorities = append(authorities, cert)
		} else {
			chain = append(chain, cert)
		}
	}
}

// newRequest draws a key and makes a request for a certificate of it, for the given
// host names and addresses.
func newRequest(names []string) (request []byte, key crypto.Signer, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("draw key: %w", err)
	}
	request, err = requestFor(private, names)
	return request, private, err
}

// requestFor makes a request for a certificate of a key.
func requestFor(key crypto.Signer, names []string) (request []byte, err error) {
	var template x509.CertificateRequest
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	return request, nil
}

// obtain draws a key and gets a certificate for it from a control plane.
func obtain(ctx context.Context, names []string, ask func(ctx context.Context, request []byte) (*controlpb.Certificate, error)) (Issued, error) {
	request, key, err := newRequest(names)
	if err != nil {
		return Issued{}, err
	}
	return obtainFor(ctx, key, request, ask)
}

// obtainFor gets a certificate for a key.
func obtainFor(ctx context.Context, key crypto.Signer, request []byte, ask func(ctx context.Context, request []byte) (*controlpb.Certificate, error)) (Issued, error) {
	answer, err := ask(ctx, request)
	if err != nil {
		return Issued{}, err
	}
	parse := func(ders [][]byte) (certs []*x509.Certificate, err error) {
		for _, der := range ders {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("read the issued certificate: %w", err)
			}
			certs = append(certs, cert)
		}
		if len(certs) == 0 {
			err = errors.New("the control plane issued no certificate")
		}
		return certs, err
	}
	chain, err := parse(answer.Chain)
	if err != nil {
		return Issued{}, err
	}
	authorities, err := parse(answer.Authorities)
	if err != nil {
		return Issued{}, err
	}
	if !matches(key, chain[0]) {
		return Issued{}, errors.New("the issued certificate is for another key")
	}
	return together(key, chain, authorities), nil
}

// FileTrust is for identities that the operator keeps valid. The files are read at
// every handshake, so that renewed ones apply at once.
func FileTrust(certFile, keyFile, authoritiesFile string) Trust {
	return Trust{
		Certificate: func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				return nil, fmt.Errorf("load node certificate: %w", err)
			}
			return &c, nil
		},
		Roots: func() (*x509.CertPool, error) {
			text, err := os.ReadFile(authoritiesFile)
			if err != nil {
				return nil, fmt.Errorf("load authorities: %w", err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("load authorities: %s contains no certificate", authoritiesFile)
			}
			return pool, nil
		},
	}
}
