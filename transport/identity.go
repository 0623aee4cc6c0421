package transport

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/wholefile"
)

// Pin is the SHA-256 of a certificate's public key (its SubjectPublicKeyInfo). So it
// stays the same when the certificate is renewed with the same key.
type Pin [sha256.Size]byte

// pinPrefix names the hash in a pin's text.
const pinPrefix = "sha256:"

// PinOf gives the pin of a certificate.
func PinOf(cert *x509.Certificate) Pin {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// ParsePin reads "sha256:" and the hash in hexadecimal or base64, standard or
// URL, with padding or without.
func ParsePin(text string) (Pin, error) {
	hash, ok := strings.CutPrefix(strings.TrimSpace(text), pinPrefix)
	if !ok {
		return Pin{}, fmt.Errorf("a pin must begin with %q", pinPrefix)
	}
	if len(hash) == hex.EncodedLen(sha256.Size) {
		if sum, err := hex.DecodeString(hash); err == nil {
			return Pin(sum), nil
		}
	}
	bare := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSuffix(hash, "="))
	sum, err := base64.RawStdEncoding.Strict().DecodeString(bare)
	if err != nil || len(sum) != sha256.Size {
		return Pin{}, fmt.Errorf("a pin must be %q followed by a SHA-256 in hexadecimal or base64", pinPrefix)
	}
	return Pin(sum), nil
}

// String gives the pin as ParsePin reads it.
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// identityLife is how long a self-signed certificate is valid. Agents that pin its key
// do not check this.
const identityLife = 10 * 365 * 24 * time.Hour

// LoadIdentity reads a server's certificate chain and key. With Leaf set in the result,
// PinOf(c.Leaf) is the pin for agents.
func LoadIdentity(certFile, keyFile string) (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load identity from %s and %s: %w", certFile, keyFile, err)
	}
	return c, nil
}

// LoadOrCreateIdentity is LoadIdentity. If there is no identity yet, it first makes a
// self-signed ECDSA P-256 identity for the names (host names and IP addresses;
// localhost always). A key without certificate, which a crash between the two leaves,
// gets a certificate. A certificate without key is an error.
func LoadOrCreateIdentity(certFile, keyFile string, names ...string) (tls.Certificate, error) {
	if _, err := os.Stat(certFile); err == nil {
		return LoadIdentity(certFile, keyFile)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("look for an identity: %w", err)
	}
	key, err := loadOrCreateKey(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := selfSign(key, names)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create certificate: %w", err)
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return tls.Certificate{}, fmt.Errorf("save certificate: %w", err)
	}
	return LoadIdentity(certFile, keyFile)
}

func loadOrCreateKey(file string) (crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("draw identity key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode identity key: %w", err)
		}
		if err := writePEM(file, "PRIVATE KEY", der); err != nil {
			return nil, fmt.Errorf("save identity key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read identity key: %s contains no PEM block", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read identity key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read identity key: a %T cannot sign", key)
	}
	return signer, nil
}

func selfSign(key crypto.Signer, names []string) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "tunnox"},
		NotBefore:    now.Add(-time.Hour), // an agent's clock may be a little behind
		NotAfter:     now.Add(identityLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" && name != "localhost" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// writePEM makes the file whole or not at all, readable by its owner only.
func writePEM(file, kind string, der []byte) error {
	return wholefile.Write(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
