package control

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// A certificate of the cluster names what it is for in its only URI: a node by
// tunnox://node/node-001, the State service by tunnox://control/state, what signs
// records by tunnox://control/records. Host names
// play no part, so that nodes and control planes may move.
const (
	uriScheme   = "tunnox"
	uriNode     = "node"
	uriControl  = "control"
	stateOfPath = "/state"
	recordsPath = "/records"
)

func nodeURI(node string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: uriNode, Path: "/" + node}
}

func stateURI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: uriControl, Path: stateOfPath}
}

// ErrIdentity: a certificate is not the one that is needed here.
var ErrIdentity = errors.New("control: certificate does not prove what it should")

// Trust is what a node proves itself with and verifies others with. Both are
// asked at every handshake, so that a renewed certificate holds from then on.
type Trust struct {
	// Certificate gives the node's certificate and key.
	Certificate func() (*tls.Certificate, error)
	// Roots gives the authorities of the cluster.
	Roots func() (*x509.CertPool, error)
}

// nodeOf reads the node from a verified certificate.
func nodeOf(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("%w: it has %d URIs", ErrIdentity, len(cert.URIs))
	}
	node := strings.TrimPrefix(cert.URIs[0].Path, "/")
	if !validNode(node) || cert.URIs[0].String() != nodeURI(node).String() {
		return "", fmt.Errorf("%w: it is not a node's", ErrIdentity)
	}
	return node, nil
}

// validNode allows what can stand in a node id: it becomes a label of metrics.
func validNode(node string) bool {
	return node != "" && len(node) <= 64 && strings.Trim(node, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

var alpn = []string{"h2"}

// serverTLS lets two kinds of callers through: those with a node certificate of
// the cluster and those without any. Any other certificate ends the handshake.
func serverTLS(own func() (*tls.Certificate, error), roots *x509.CertPool, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: alpn,
		Time:       now,
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  roots,
		// A resumed connection would not ask for the certificate again.
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			_, err := nodeOf(state.PeerCertificates[0])
			return err
		},
	}
}

// clientTLS verifies that the server is the State service of the cluster, and
// proves the node to it.
func (t Trust) clientTLS(now func() time.Time) (*tls.Config, error) {
	if t.Certificate == nil || t.Roots == nil {
		return nil, errors.New("a node certificate and authorities are required")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: alpn,
		Time:       now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.Certificate()
		},
		// The chain is verified below, against the roots of this moment and for
		// the URI instead of a host name.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			roots, err := t.Roots()
			if err != nil {
				return fmt.Errorf("authorities: %w", err)
			}
			return verifyState(state, roots, now())
		},
	}, nil
}

// pinnedTLS is clientTLS for a node that has no certificate yet and knows the
// authority by its pin only.
func pinnedTLS(pin [sha256.Size]byte, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: alpn, Time: now,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, cert := range state.PeerCertificates {
				if cert.IsCA && pinOf(cert) == pin {
					roots := x509.NewCertPool()
					roots.AddCert(cert)
					return verifyState(state, roots, now())
				}
			}
			return fmt.Errorf("%w: no certificate in the chain is the cluster authority's of the join token", ErrIdentity)
		},
	}
}

func verifyState(state tls.ConnectionState, roots *x509.CertPool, now time.Time) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: there is none", ErrIdentity)
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("verify the control plane: %w", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != stateURI().String() {
		return fmt.Errorf("%w: it is not the State service's", ErrIdentity)
	}
	return nil
}
