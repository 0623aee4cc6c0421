package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Sizes in a credential and its proof, in bytes.
const (
	PublicKeySize = ed25519.PublicKeySize
	SignatureSize = ed25519.SignatureSize
	NonceSize     = 32
	BindingSize   = 32
	// MaxInstance bounds the instance in Hello, which a proof covers.
	MaxInstance = 64
)

// codePrefix makes an auth code recognisable to people and to secret scanners.
const codePrefix = "tnx_"

// codeLength is that of a whole auth code: the prefix and 32 bytes in base64url.
const codeLength = len(codePrefix) + 43

// ErrAuthCode: the text is no auth code. It says nothing of the text, which may
// be somebody's secret with a typing error.
var ErrAuthCode = errors.New(`an auth code is "tnx_" and 43 characters of base64url`)

// Credential is what an agent proves itself with: an Ed25519 key. Only the agent
// has it; the server knows the public half.
type Credential struct {
	key ed25519.PrivateKey
}

// NewCredential draws a fresh credential.
func NewCredential() (Credential, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Credential{}, fmt.Errorf("draw a credential: %w", err)
	}
	return Credential{key}, nil
}

// ParseAuthCode reads what AuthCode wrote, with space around it allowed.
// Exactly one text stands for each credential.
func ParseAuthCode(code string) (Credential, error) {
	code = strings.TrimSpace(code)
	if len(code) != codeLength || !strings.HasPrefix(code, codePrefix) {
		return Credential{}, ErrAuthCode
	}
	seed, err := base64.RawURLEncoding.Strict().DecodeString(code[len(codePrefix):])
	if err != nil || len(seed) != ed25519.SeedSize {
		return Credential{}, ErrAuthCode
	}
	return Credential{ed25519.NewKeyFromSeed(seed)}, nil
}

// Valid tells whether the credential holds a key; the zero Credential does not.
func (c Credential) Valid() bool { return len(c.key) == ed25519.PrivateKeySize }

// AuthCode is the credential as text. It is the secret itself.
func (c Credential) AuthCode() string {
	if !c.Valid() {
		return ""
	}
	return codePrefix + base64.RawURLEncoding.EncodeToString(c.key.Seed())
}

// String hides the secret, so that a credential in a log line does no harm.
func (c Credential) String() string { return codePrefix + "..." }

// GoString hides the secret from %#v.
func (c Credential) GoString() string { return c.String() }

// PublicKey is the half that the server keeps.
func (c Credential) PublicKey() []byte {
	if !c.Valid() {
		return nil
	}
	return append([]byte(nil), c.key.Public().(ed25519.PublicKey)...)
}

// Proof is what a signature in Hello covers. The nonce makes it valid once, and the
// binding makes it valid in one TLS channel only. So it can neither be replayed, nor used
// by a man in the middle who passes messages on between two channels.
type Proof struct {
	Version  uint32 // protocol version chosen in Hello
	Nonce    []byte // Challenge.nonce, NonceSize bytes
	Binding  []byte // the session's binding, BindingSize bytes
	ClientID int64  // 0 with register
	Instance string // Hello.instance, 1 to MaxInstance bytes
}

// proofContext separates these signatures from any other use of the key.
const proofContext = "tunnox agent proof\x00"

// input is the bytes that are signed; SPEC.md has the layout.
func (p Proof) input() ([]byte, error) {
	switch {
	case len(p.Nonce) != NonceSize:
		return nil, fmt.Errorf("the nonce has %d bytes, not %d: %w", len(p.Nonce), NonceSize, Malformed)
	case len(p.Binding) != BindingSize:
		return nil, fmt.Errorf("the binding has %d bytes, not %d: %w", len(p.Binding), BindingSize, Malformed)
	case len(p.Instance) < 1 || len(p.Instance) > MaxInstance:
		return nil, fmt.Errorf("the instance has %d bytes, not 1 to %d: %w", len(p.Instance), MaxInstance, Malformed)
	}
	b := make([]byte, 0, len(proofContext)+4+NonceSize+BindingSize+8+1+len(p.Instance))
	b = append(b, proofContext...)
	b = binary.BigEndian.AppendUint32(b, p.Version)
	b = append(b, p.Nonce...)
	b = append(b, p.Binding...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.ClientID))
	b = append(b, byte(len(p.Instance)))
	return append(b, p.Instance...), nil
}

// Sign signs the proof for Hello.
func (c Credential) Sign(p Proof) ([]byte, error) {
	if !c.Valid() {
		return nil, errors.New("sign a proof: the credential is empty")
	}
	in, err := p.input()
	if err != nil {
		return nil, fmt.Errorf("sign a proof: %w", err)
	}
	return ed25519.Sign(c.key, in), nil
}

// Verify tells whether the signature is that of the public key over the proof.
// The error wraps BadCredential, or Malformed when a part has the wrong size.
func Verify(publicKey []byte, p Proof, signature []byte) error {
	in, err := p.input()
	if err != nil {
		return fmt.Errorf("verify a proof: %w", err)
	}
	if len(publicKey) != PublicKeySize || len(signature) != SignatureSize || !ed25519.Verify(publicKey, in, signature) {
		return Refuse(BadCredential)
	}
	return nil
}

// NewNonce draws a nonce for Challenge.
func NewNonce() ([]byte, error) {
	b := make([]byte, NonceSize)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return b, nil
}
