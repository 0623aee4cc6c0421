package control

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	maxNames      = 32 // host names and addresses in one certificate
)

// AuthorityOptions tune an authority; the zero value has good defaults.
type AuthorityOptions struct {
	Life    time.Duration // of the certificates it signs; 24 h
	Skew    time.Duration // how far another node's clock may be behind; 5 min
	Now     func() time.Time
	Metrics *ServerMetrics
}

// Authority signs the certificates that nodes present: to the State service, to each
// other and to agents. All control planes of a cluster share one through their [Vault].
type Authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	life    time.Duration
	skew    time.Duration
	now     func() time.Time
	metrics *ServerMetrics
}

// OpenAuthority loads the cluster's authority from the vault, and creates it if there
// is none.
func OpenAuthority(ctx context.Context, vault Vault, options AuthorityOptions) (*Authority, error) {
	a := &Authority{life: options.Life, skew: options.Skew, now: options.Now, metrics: options.Metrics}
	if a.life <= 0 {
		a.life = 24 * time.Hour
	}
	if a.skew <= 0 {
		a.skew = 5 * time.Minute
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.metrics == nil {
		a.metrics = NewServerMetrics()
	}
	text, err := vault.Load(ctx, secretAuthority)
	if errors.Is(err, ErrAbsent) {
		if text, err = a.create(); err != nil {
			return nil, fmt.Errorf("create cluster authority: %w", err)
		}
		if err = vault.Create(ctx, secretAuthority, text); errors.Is(err, ErrPresent) {
			text, err = vault.Load(ctx, secretAuthority) // another control plane was faster
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open cluster authority: %w", err)
	}
	if err := a.read(text); err != nil {
		return nil, fmt.Errorf("open cluster authority: %w", err)
	}
	return a, nil
}

// create makes a new authority as text.
func (a *Authority) create() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := a.template(authorityLife)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "Tunnox cluster authority"}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})...), nil
}

func (a *Authority) read(text []byte) error {
	key, certs, _, err := readPEM(text)
	if err != nil {
		return err
	}
	if key == nil || len(certs) != 1 || !certs[0].IsCA {
		return errors.New("the secret is not a key and the certificate of an authority")
	}
	if !matches(key, certs[0]) {
		return errors.New("the key does not belong to the certificate")
	}
	a.cert, a.key = certs[0], key
	return nil
}

func matches(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// template gives a certificate without a subject. It begins a little in the past, for
// nodes whose clock is behind.
func (a *Authority) template(life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := a.now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // 0 is not allowed
		NotBefore:    now.Add(-a.skew), NotAfter: now.Add(life),
		BasicConstraintsValid: true,
	}, nil
}

// Certificate gives the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Roots gives a pool that trusts only the authority.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Pin gives the SHA-256 of the authority's public key. Agents pin it, and join tokens
// contain it.
func (a *Authority) Pin() [sha256.Size]byte { return pinOf(a.cert) }

func pinOf(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// purpose is the purpose of a certificate.
type purpose string

const (
	forNode   purpose = "node"   // a forwarder, to the State service and to peers
	forState  purpose = "state"  // the State service
	forAgents purpose = "agents" // a forwarder, to agents
)

// sign certifies a public key.
func (a *Authority) sign(public crypto.PublicKey, why purpose, change func(*x509.Certificate)) (*x509.Certificate, error) {
	template, err := a.template(a.life)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	a.metrics.certificates.WithLabelValues(string(why)).Inc()
	return x509.ParseCertificate(der)
}

// SignNode certifies the key of a request as a node's key. Only the key of the request
// matters: the caller decides who may be which node.
func (a *Authority) SignNode(request []byte, node string) (*x509.Certificate, error) {
	if !validNode(node) {
		return nil, invalid("node", "must be a node id, for example node-001")
	}
	r, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	return a.sign(r.PublicKey, forNode, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: node}
		c.URIs = []*url.URL{nodeURI(node)}
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	})
}

// SignAgents certifies the key of a request for the host names and addresses in it, at
// which agents connect. The certificate proves nothing to nodes.
func (a *Authority) SignAgents(request []byte) (*x509.Certificate, error) {
	r, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	if n := len(r.DNSNames) + len(r.IPAddresses); n < 1 || n > maxNames {
		return nil, invalid("request", fmt.Sprintf("must name 1 to %d host names and addresses, but names %d", maxNames, n))
	}
	return a.sign(r.PublicKey, forAgents, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "tunnox"}
		c.DNSNames, c.IPAddresses = r.DNSNames, r.IPAddresses
	})
}

// IssueState makes an identity of the State service.
func (a *Authority) IssueState() (Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, fmt.Errorf("draw key: %w", err)
	}
	leaf, err := a.sign(key.Public(), forState, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "tunnox state"}
		c.URIs = []*url.URL{stateURI()}
	})
	if err != nil {
		return Issued{}, err
	}
	return a.issued(leaf, key), nil
}

// IssueNode makes an identity of a node in the process that has the authority.
func (a *Authority) IssueNode(node string) (Issued, error) {
	request, key, err := newRequest(nil)
	if err != nil {
		return Issued{}, err
	}
	leaf, err := a.SignNode(request, node)
	if err != nil {
		return Issued{}, err
	}
	return a.issued(leaf, key), nil
}

// IssueAgents makes an identity that agents verify, in the process that has the
// authority.
func (a *Authority) IssueAgents(names ...string) (Issued, error) {
	request, key, err := newRequest(names)
	if err != nil {
		return Issued{}, err
	}
	leaf, err := a.SignAgents(request)
	if err != nil {
		return Issued{}, err
	}
	return a.issued(leaf, key), nil
}

// issued puts the chain together. It contains the authority, so that an agent that
// pinned the authority finds it.
func (a *Authority) issued(leaf *x509.Certificate, key crypto.Signer) Issued {
	return Issued{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf},
		Authorities: []*x509.Certificate{a.cert},
	}
}

// readRequest reads a request for a certificate. Its signature proves that its maker
// has the key.
func readRequest(der []byte) (*x509.CertificateRequest, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, invalid("request", "must be a PKCS #10 certificate request in DER")
	}
	switch key := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return nil, invalid("request", "the key must be ECDSA on P-256 or P-384, or Ed25519")
		}
	case ed25519.PublicKey:
	default:
		return nil, invalid("request", "the key must be ECDSA on P-256 or P-384, or Ed25519")
	}
	if err := r.CheckSignature(); err != nil {
		return nil, invalid("request", "is not signed by its key")
	}
	return r, nil
}

func invalid(field, message string) error {
	return &domain.Error{Code: domain.CodeInvalid, Message: "The request is not valid.",
		Faults: []domain.Fault{{Field: field, Message: message}}}
}
