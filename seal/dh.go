package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"sync"

	"github.com/flynn/noise"
)

// maxShared bounds the peers whose static secret is kept: 4096 of about 150 bytes.
const maxShared = 4096

// static is a static key as handshakes use it. X25519 is nearly all that a handshake costs,
// and a package that takes keys as bytes computes their public halves anew each time. So keys
// are kept as what they are, and so is the secret of two static keys, which is always the same.
type static struct {
	key     Key
	private *ecdh.PrivateKey

	mu     sync.Mutex
	shared map[PublicKey][]byte // with others; guarded by mu. As secret as the key itself
}

func newStatic(key Key) *static {
	s := &static{key: key, shared: map[PublicKey][]byte{}}
	s.private, _ = ecdh.X25519().NewPrivateKey(key.secret[:]) // 32 bytes are a key
	return s
}

// with gives the secret of this key and another one. It fails for a key of low order.
func (s *static) with(peer []byte) ([]byte, error) {
	if len(peer) != KeySize {
		return nil, ErrPublicKey
	}
	s.mu.Lock()
	secret, ok := s.shared[PublicKey(peer)]
	s.mu.Unlock()
	if ok {
		return secret, nil
	}
	return agree(s.private, peer)
}

// keep keeps the secret with a peer that has proved its key.
func (s *static) keep(peer PublicKey) {
	s.mu.Lock()
	_, ok := s.shared[peer]
	s.mu.Unlock()
	if ok {
		return
	}
	secret, err := agree(s.private, peer[:])
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.shared) >= maxShared {
		clear(s.shared)
	}
	s.shared[peer] = secret
}

// exchange is the Diffie-Hellman of one handshake: noise.DHFunc with X25519.
type exchange struct {
	static    *static
	ephemeral *ecdh.PrivateKey
	drawn     []byte // the ephemeral key's bytes, as they were given away
}

// GenerateKeypair draws the handshake's ephemeral key.
func (x *exchange) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return noise.DHKey{}, err
	}
	x.ephemeral, x.drawn = private, private.Bytes()
	return noise.DHKey{Private: x.drawn, Public: private.PublicKey().Bytes()}, nil
}

// DH gives the secret of one of this end's two keys and a public key.
func (x *exchange) DH(private, public []byte) ([]byte, error) {
	switch {
	case subtle.ConstantTimeCompare(private, x.static.key.secret[:]) == 1:
		return x.static.with(public)
	case subtle.ConstantTimeCompare(private, x.drawn) == 1:
		return agree(x.ephemeral, public)
	}
	return nil, fmt.Errorf("handshake: %w", ErrSecret)
}

// DHLen is the length of keys and secrets.
func (*exchange) DHLen() int { return KeySize }

// DHName is the name in the protocol's name.
func (*exchange) DHName() string { return "25519" }

func agree(private *ecdh.PrivateKey, public []byte) ([]byte, error) {
	key, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return private.ECDH(key) // an error where the secret would be known to everybody
}
