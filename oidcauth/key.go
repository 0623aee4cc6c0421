package oidcauth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tunnox-net/tunnox/basicauth"
)

const (
	keySize = 32 // bytes
	// prefix begins what is kept of a client secret. The domain knows its form too.
	prefix = "$oidc-aes256gcm$v=1$"
)

var text = base64.RawStdEncoding.Strict()

// errSealed says that a secret was sealed with another key, or for another client.
var errSealed = errors.New("oidcauth: the client secret was not sealed with this key for this issuer and client id")

// Key seals client secrets, and signs cookies.
type Key struct{ secret [keySize]byte }

// NewKey draws a key and gives its text.
func NewKey() []byte {
	var secret [keySize]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	return []byte(text.EncodeToString(secret[:]) + "\n")
}

// ParseKey reads the text of a key.
func ParseKey(of []byte) (Key, error) {
	b, err := text.DecodeString(strings.TrimSpace(string(of)))
	if err != nil || len(b) != keySize {
		return Key{}, errors.New("this is no key for the client secrets of mappings")
	}
	return Key{[keySize]byte(b)}, nil
}

// derived gives the key for a purpose.
func (k Key) derived(purpose string, about ...string) [keySize]byte {
	h := hmac.New(sha256.New, k.secret[:])
	fmt.Fprintf(h, "tunnox oidc %s", purpose)
	for _, s := range about {
		fmt.Fprintf(h, "\x00%d\x00%s", len(s), s)
	}
	return [keySize]byte(h.Sum(nil))
}

func (k Key) box() (cipher.AEAD, error) {
	key := k.derived("seal")
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// client names an issuer and a client id, for which a secret is sealed.
func client(issuer, clientID string) []byte {
	return fmt.Appendf(nil, "%d\x00%s%s", len(issuer), issuer, clientID)
}

// signer gives the key that signs the cookies of an issuer's client.
func (k Key) signer(issuer, clientID string) basicauth.Key {
	return basicauth.Key(k.derived("sign", issuer, clientID))
}

// Seal makes of a client secret what may be kept. One secret always becomes the same, so
// that a request that is repeated is the same request.
func (k Key) Seal(issuer, clientID, secret string) (string, error) {
	box, err := k.box()
	if err != nil {
		return "", fmt.Errorf("seal a client secret: %w", err)
	}
	nonce := k.derived("nonce", issuer, clientID, secret) // what is sealed twice is the same
	sealed := box.Seal(nonce[:box.NonceSize()], nonce[:box.NonceSize()], []byte(secret), client(issuer, clientID))
	signer := k.signer(issuer, clientID)
	return prefix + text.EncodeToString(signer.Public()) + "$" + text.EncodeToString(sealed), nil
}

// open gives the secret of what Seal made for the same issuer and client id.
func (k Key) open(kept, issuer, clientID string) (string, error) {
	_, sealed, ok := parts(kept)
	box, err := k.box()
	if err != nil {
		return "", err
	}
	if !ok || len(sealed) < box.NonceSize() {
		return "", errSealed
	}
	secret, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], client(issuer, clientID))
	if err != nil {
		return "", errSealed
	}
	return string(secret), nil
}

func parts(kept string) (public ed25519.PublicKey, sealed []byte, ok bool) {
	rest, ok := strings.CutPrefix(kept, prefix)
	first, second, both := strings.Cut(rest, "$")
	key, err := text.DecodeString(first)
	sealed, err2 := text.DecodeString(second)
	return key, sealed, ok && both && err == nil && err2 == nil && len(key) == ed25519.PublicKeySize
}

// Cookies gives what verifies the cookies of a kept secret's client; false for what Seal
// has not made.
func Cookies(kept string) (basicauth.Kept, bool) {
	public, _, ok := parts(kept)
	return basicauth.KeptOf(public), ok
}
