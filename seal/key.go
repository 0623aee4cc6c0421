package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of a static key and of its public half, in bytes.
const KeySize = 32

// Prefixes make keys recognisable to people, and secret ones to secret scanners.
const (
	secretPrefix = "tnxs_"
	publicPrefix = "tnxk_"
)

// Errors of parsing. They say nothing of the text, which may be somebody's secret with a
// typing error.
var (
	ErrSecret    = errors.New(`a secret key is "tnxs_" and 43 characters of base64url`)
	ErrPublicKey = errors.New(`a public key is "tnxk_" and 43 characters of base64url`)
)

// Key is an agent's static key: X25519 (RFC 7748). It proves at which end of a stream
// the agent is. The zero Key is none.
type Key struct {
	secret [KeySize]byte
	public PublicKey
}

// NewKey draws a key.
func NewKey() (Key, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("draw a key: %w", err)
	}
	return keyOf(k), nil
}

// ParseKey reads what Secret wrote. Space around it is allowed.
func ParseKey(text string) (Key, error) {
	b, ok := decode(text, secretPrefix)
	if !ok {
		return Key{}, ErrSecret
	}
	k, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		return Key{}, ErrSecret
	}
	return keyOf(k), nil
}

func keyOf(k *ecdh.PrivateKey) Key {
	return Key{secret: [KeySize]byte(k.Bytes()), public: PublicKey(k.PublicKey().Bytes())}
}

// Valid tells whether there is a key.
func (k Key) Valid() bool { return k.public.Valid() }

// Public is the half that others may know.
func (k Key) Public() PublicKey { return k.public }

// Secret is the key as text, to be kept in a file that only its owner can read. It is
// the secret itself.
func (k Key) Secret() string { return secretPrefix + base64.RawURLEncoding.EncodeToString(k.secret[:]) }

// String hides the secret, so that a key in a log line does no harm.
func (k Key) String() string { return secretPrefix + "..." }

// GoString hides the secret from %#v.
func (k Key) GoString() string { return k.String() }

// PublicKey is the public half of a static key. The zero PublicKey is none.
type PublicKey [KeySize]byte

// ParsePublicKey reads what String wrote. Space around it is allowed. A point that gives
// every peer the same secret is refused.
func ParsePublicKey(text string) (PublicKey, error) {
	b, ok := decode(text, publicPrefix)
	if !ok {
		return PublicKey{}, ErrPublicKey
	}
	return PublicKeyOf(b[:])
}

// PublicKeyOf makes a key of its 32 bytes.
func PublicKeyOf(b []byte) (PublicKey, error) {
	if len(b) != KeySize || weak(PublicKey(b)) {
		return PublicKey{}, ErrPublicKey
	}
	return PublicKey(b), nil
}

// weak tells whether the key is one of the points of low order (RFC 7748, section 6.1),
// with which a secret would be known to everybody.
func weak(p PublicKey) bool {
	public, err := ecdh.X25519().NewPublicKey(p[:])
	if err != nil {
		return true
	}
	probe, err := ecdh.X25519().NewPrivateKey(probeSecret[:])
	if err != nil {
		return true
	}
	_, err = probe.ECDH(public) // fails where the result is zero
	return err != nil
}

// probeSecret is nobody's key: any one shows whether a point is weak.
var probeSecret = [KeySize]byte{0: 8, 31: 64}

// Valid tells whether there is a key.
func (p PublicKey) Valid() bool { return p != PublicKey{} }

// String is the key as text: "tnxk_" and 43 characters of base64url.
func (p PublicKey) String() string { return publicPrefix + base64.RawURLEncoding.EncodeToString(p[:]) }

// decode reads a prefix and the base64url of 32 bytes. Exactly one text stands for each
// value.
func decode(text, prefix string) (b [KeySize]byte, ok bool) {
	rest, found := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !found || len(rest) != base64.RawURLEncoding.EncodedLen(KeySize) {
		return b, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil {
		return b, false
	}
	return [KeySize]byte(raw), true
}
