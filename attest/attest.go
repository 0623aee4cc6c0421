// Package attest lets a reader tell what a control plane has written from what
// somebody else has put in the same place.
//
// Its duty: a [Key] attests items, and a [Verifier] checks them with public keys
// only, so that who can check cannot forge. A proof says that the holder of the key
// wrote this item for this purpose. Its limit: it does not say that the item is the
// newest one. Who can write can always hold news back; what follows a log notices
// that by positions.
//
// To sign takes 20 microseconds and to check 50, so items are signed in groups: the
// leaves of a small Merkle tree, whose root is signed once, as in RFC 6962. For 16
// items that is 2 and 5 microseconds an item.
package attest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	// keySize is that of the secret from which all else is derived.
	keySize = 32
	// group is how many items share a signature: a path of four hashes at most.
	group = 16

	keyPrefix = "tnxr_" // so that a scanner of secrets knows one
)

// Purpose says what an item is. A proof made for one purpose is none for another.
type Purpose string

// KeyID names a key in proofs.
type KeyID [8]byte

// Key is what control planes share to attest, to seal and to blind.
type Key struct {
	id      KeyID
	private ed25519.PrivateKey
	aead    cipher.AEAD
	blind   []byte
}

// NewKey draws a key and gives its text, which is a secret.
func NewKey() []byte {
	var secret [keySize]byte
	rand.Read(secret[:]) // never fails
	return []byte(keyPrefix + base64.RawURLEncoding.EncodeToString(secret[:]) + "\n")
}

// ParseKey reads what NewKey gave. Its errors do not repeat the text.
func ParseKey(text []byte) (*Key, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(string(text)), keyPrefix)
	secret, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if !ok || err != nil || len(secret) != keySize {
		return nil, fmt.Errorf("a key for records is %q and 43 characters of base64url", keyPrefix)
	}
	var derived [3][]byte
	for i, info := range []string{"tunnox records: sign", "tunnox records: seal", "tunnox records: blind"} {
		if derived[i], err = hkdf.Key(sha256.New, secret, nil, info, keySize); err != nil {
			return nil, fmt.Errorf("derive a key for records: %w", err)
		}
	}
	k := &Key{private: ed25519.NewKeyFromSeed(derived[0]), blind: derived[2]}
	block, err := aes.NewCipher(derived[1])
	if err != nil {
		return nil, fmt.Errorf("derive a key for records: %w", err)
	}
	if k.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("derive a key for records: %w", err)
	}
	k.id = IDOf(k.Public())
	return k, nil
}

// Public is what verifies what the key attests.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// ID names the key.
func (k *Key) ID() KeyID { return k.id }

// IDOf names a public key.
func IDOf(public ed25519.PublicKey) (id KeyID) {
	sum := sha256.Sum256(public)
	copy(id[:], sum[:])
	return id
}

// errSealed says that something was not sealed with this key for this place.
var errSealed = errors.New("attest: this was not sealed with this key for this place")

// Seal encrypts what only control planes may read. It opens at the same place only.
func (k *Key) Seal(plain []byte, place string) []byte {
	return k.aead.Seal(nil, nil, plain, []byte(place))
}

// Open gives what was sealed.
func (k *Key) Open(sealed []byte, place string) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// Blind gives a name under which something can be looked up, and which tells nobody
// what it stands for.
func (k *Key) Blind(name string) string {
	mac := hmac.New(sha256.New, k.blind)
	mac.Write([]byte(name))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// Trust is what a process writes with and whom it believes.
type Trust struct {
	Key      *Key // nil: it only reads, and only what is open
	Verifier *Verifier
}

// Trust attests with the key and believes it alone.
func (k *Key) Trust() Trust { return Trust{Key: k, Verifier: k.Verifier()} }
