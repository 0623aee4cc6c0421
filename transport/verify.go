package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// LoadRoots reads a file of PEM certificates that verify a server.
func LoadRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read roots: %s contains no certificate", file)
	}
	return pool, nil
}

// ErrPin: the server is not the pinned one.
var ErrPin = errors.New("transport: the server's identity matches no pin")

// verifyPins accepts a chain that contains a pinned certificate. A pinned leaf has
// proved its key in the handshake. A pinned authority further up counts only if each
// certificate below it is signed by the next one: anybody can append a certificate of
// somebody else to a chain. Then the name must match too, because an authority signs
// for many servers. Dates are not checked: a pinned key is trusted until the pin is
// removed.
func verifyPins(state tls.ConnectionState, name string, pins []Pin) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return ErrPin
	}
	if slices.Contains(pins, PinOf(chain[0])) {
		return nil
	}
	for i := 1; i < len(chain); i++ {
		if err := chain[i-1].CheckSignatureFrom(chain[i]); err != nil {
			return fmt.Errorf("%w: certificate %d is not signed by the next: %w", ErrPin, i-1, err)
		}
		if slices.Contains(pins, PinOf(chain[i])) {
			return chain[0].VerifyHostname(name)
		}
	}
	return ErrPin
}
