package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Identity is the proved identity of a peer.
type Identity struct {
	// Node is its node id, node-001.
	Node string
	// Expires is when its certificate expires. After that the peer may open nothing
	// more on the connection that it made with this certificate.
	Expires time.Time
}

// ErrIdentity: a certificate does not prove the expected node.
var ErrIdentity = errors.New("bridge: the certificate does not belong to the node")

// A node's certificate names it in one URI, tunnox://node/node-001.
const identityScheme, identityHost = "tunnox", "node"

// IdentityURI gives the only URI in a node's certificate.
func IdentityURI(node string) *url.URL {
	return &url.URL{Scheme: identityScheme, Host: identityHost, Path: "/" + node}
}

// identityOf reads the node from a verified certificate. Other certificates of the same
// authority do not prove a node.
func identityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: it has %d URIs", ErrIdentity, len(cert.URIs))
	}
	node := strings.TrimPrefix(cert.URIs[0].Path, "/")
	if !validNode(node) || cert.URIs[0].String() != IdentityURI(node).String() {
		return Identity{}, fmt.Errorf("%w: it names %q", ErrIdentity, cert.URIs[0].Redacted())
	}
	return Identity{Node: node, Expires: cert.NotAfter}, nil
}

// validNode checks the characters of a node id, because the id becomes the label of a
// metric.
func validNode(node string) bool {
	return node != "" && len(node) <= 64 && strings.Trim(node, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Trust gives a node its own certificate and the authorities for its peers. Both
// functions are called at every handshake, so a renewed certificate and a changed
// authority apply from then on.
type Trust struct {
	// Certificate gives the node's certificate and key, which are valid for client and
	// server.
	Certificate func() (*tls.Certificate, error)
	// Roots gives the authorities that sign node certificates.
	Roots func() (*x509.CertPool, error)
}

func (t Trust) check() error {
	if t.Certificate == nil || t.Roots == nil {
		return errors.New("bridge: a certificate and roots are required")
	}
	return nil
}

// both gives the certificate and the roots for a handshake.
func (t Trust) both() (*tls.Certificate, *x509.CertPool, error) {
	cert, err := t.Certificate()
	if err != nil {
		return nil, nil, fmt.Errorf("node certificate: %w", err)
	}
	roots, err := t.Roots()
	if err != nil {
		return nil, nil, fmt.Errorf("node authorities: %w", err)
	}
	if cert == nil || roots == nil {
		return nil, nil, errors.New("bridge: the node certificate or the authorities are missing")
	}
	return cert, roots, nil
}

// protocols is what both ends name in the handshake (ALPN).
var protocols = []string{"h2"}

// serverTLS verifies clients. The handshake of a client that is not a node fails.
func (t Trust) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, roots, err := t.both()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:       tls.VersionTLS13,
				NextProtos:       protocols,
				Certificates:     []tls.Certificate{*cert},
				ClientAuth:       tls.RequireAndVerifyClientCert,
				ClientCAs:        roots,
				VerifyConnection: func(state tls.ConnectionState) error { return verifyPeer(state, "") },
				// Connections are few and live long, and the check of the certificate
				// would be left out of a resumed one.
				SessionTicketsDisabled:      true,
				DynamicRecordSizingDisabled: true,
			}, nil
		},
	}
}

// clientTLS verifies that the server is the expected node.
func (t Trust) clientTLS(node string) (*tls.Config, error) {
	_, roots, err := t.both()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  protocols,
		DynamicRecordSizingDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.Certificate()
		},
		// Nodes are known by id, not by host name. So the chain is verified below,
		// against the same roots, and not here.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return fmt.Errorf("%w: the peer sent no certificate", ErrIdentity)
			}
			between := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				between.AddCert(c)
			}
			if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}); err != nil {
				return fmt.Errorf("verify peer: %w", err)
			}
			return verifyPeer(state, node)
		},
	}, nil
}

// verifyPeer checks the identity in a verified chain. With want empty, any node is
// allowed.
func verifyPeer(state tls.ConnectionState, want string) error {
	if state.NegotiatedProtocol != protocols[0] {
		return errors.New("bridge: the peer does not speak HTTP/2")
	}
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: the peer sent no certificate", ErrIdentity)
	}
	identity, err := identityOf(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	if want != "" && identity.Node != want {
		return fmt.Errorf("%w: it is %s and not %s", ErrIdentity, identity.Node, want)
	}
	return nil
}
