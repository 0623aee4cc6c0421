package httpapi

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// AccessTime is how long an access token is good. It is looked up anyway, so
	// that this only bounds how long a copy of one that nobody revokes is.
	AccessTime = 15 * time.Minute
	// RefreshTime is how long a login lasts that nobody refreshes.
	RefreshTime = 7 * 24 * time.Hour

	tokenIssuer   = "tunnox"
	tokenAudience = "tunnox-api"
	minSecret     = 32   // bytes of a secret for HS256, RFC 7518 §3.2
	minRSA        = 2048 // bits, RFC 7518 §3.3
)

// secretKind begins a file with a secret.
const secretKind = "HS256:"

// SigningKey signs access tokens, and checks those it has signed. What the key is
// fixes its algorithm: a token cannot choose.
type SigningKey struct {
	id     string
	method jwt.SigningMethod
	sign   any
	verify any
	jwk    map[string]string // nil for a secret, which is nobody's to know
}

// NewSigningKey draws an Ed25519 key and gives it with its PEM form.
func NewSigningKey() (SigningKey, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return SigningKey{}, nil, fmt.Errorf("draw a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return SigningKey{}, nil, fmt.Errorf("encode a signing key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	key, err := ParseSigningKey(text)
	return key, text, err
}

// ParseSigningKey reads a key: a PKCS #8 private key in PEM, Ed25519 for EdDSA or
// RSA for RS256, or a secret of at least 32 bytes for HS256, behind "HS256:". A file
// says which kind it is, because the beginning of a PEM file, which anybody can
// write, is long enough for a secret. Errors never repeat it.
func ParseSigningKey(text []byte) (SigningKey, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		secret, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(secretKind))
		if secret = bytes.TrimSpace(secret); !ok || len(secret) < minSecret || bytes.Contains(secret, []byte("-----")) {
			return SigningKey{}, fmt.Errorf("a signing key is a whole PEM private key, or %s and a secret of at least %d bytes", secretKind, minSecret)
		}
		sum := sha256.Sum256(append([]byte("tunnox key id\x00"), secret...))
		return SigningKey{id: hex.EncodeToString(sum[:8]), method: jwt.SigningMethodHS256, sign: secret, verify: secret}, nil
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return SigningKey{}, errors.New("a signing key in PEM is one key, and nothing behind it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return SigningKey{}, errors.New("a signing key in PEM is a PKCS #8 private key")
	}
	encode := base64.RawURLEncoding.EncodeToString
	switch private := parsed.(type) {
	case ed25519.PrivateKey:
		public := private.Public().(ed25519.PublicKey)
		return publicKey(jwt.SigningMethodEdDSA, private, public, map[string]string{"kty": "OKP", "crv": "Ed25519", "x": encode(public)})
	case *rsa.PrivateKey:
		if private.N.BitLen() < minRSA {
			return SigningKey{}, fmt.Errorf("an RSA signing key has at least %d bits", minRSA)
		}
		return publicKey(jwt.SigningMethodRS256, private, &private.PublicKey, map[string]string{"kty": "RSA",
			"n": encode(private.N.Bytes()), "e": encode(big.NewInt(int64(private.E)).Bytes())})
	}
	return SigningKey{}, errors.New("a signing key is Ed25519 or RSA")
}

func publicKey(method jwt.SigningMethod, private, public crypto.PublicKey, jwk map[string]string) (SigningKey, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return SigningKey{}, fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	id := hex.EncodeToString(sum[:8])
	jwk["kid"], jwk["alg"], jwk["use"] = id, method.Alg(), "sig"
	return SigningKey{id: id, method: method, sign: private, verify: public, jwk: jwk}, nil
}

// String hides the key.
func (k SigningKey) String() string { return "signing key " + k.id }

// GoString hides the key from %#v.
func (k SigningKey) GoString() string { return k.String() }

// tokens makes and checks access tokens. The first key signs; the others are
// those it replaced, whose tokens are still good.
type tokens struct{ keys []SigningKey }

type accessClaims struct {
	jwt.RegisteredClaims
	Login string `json:"sid"`
}

// issue makes an access token for a login.
func (t tokens) issue(user, login int64, now time.Time) (string, error) {
	key := t.keys[0]
	token := jwt.NewWithClaims(key.method, accessClaims{Login: formatID(login), RegisteredClaims: jwt.RegisteredClaims{
		Issuer: tokenIssuer, Audience: jwt.ClaimStrings{tokenAudience}, Subject: formatID(user),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(AccessTime))}})
	token.Header["kid"], token.Header["typ"] = key.id, "at+jwt"
	text, err := token.SignedString(key.sign)
	if err != nil {
		return "", fmt.Errorf("sign an access token: %w", err)
	}
	return text, nil
}

// verify checks a token and gives its user and login.
func (t tokens) verify(text string, now time.Time) (user, login int64, err error) {
	var claims accessClaims
	_, err = jwt.ParseWithClaims(text, &claims, func(token *jwt.Token) (any, error) {
		// It names headers that must be understood (RFC 7515 §4.1.11), and there are none
		// that we understand. The library passes over it.
		if _, critical := token.Header["crit"]; critical {
			return nil, errNobody
		}
		for _, key := range t.keys {
			if token.Header["kid"] == key.id && token.Method == key.method {
				return key.verify, nil
			}
		}
		return nil, errNobody
	}, jwt.WithIssuer(tokenIssuer), jwt.WithAudience(tokenAudience), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithStrictDecoding())
	if err != nil {
		return 0, 0, fmt.Errorf("verify an access token: %w", err)
	}
	user, err = strconv.ParseInt(claims.Subject, 10, 64)
	if err != nil {
		return 0, 0, errNobody
	}
	login, err = strconv.ParseInt(claims.Login, 10, 64)
	if err != nil || user < 1 || login < 1 {
		return 0, 0, errNobody
	}
	return user, login, nil
}

// KeySet is the public keys, as other programs expect them.
type KeySet struct {
	Keys []map[string]string `json:"keys" nullable:"false" doc:"JSON Web Keys"`
}

// jwks lists the public keys (RFC 7517).
func (t tokens) jwks() []map[string]string {
	keys := []map[string]string{}
	for _, k := range t.keys {
		if k.jwk != nil {
			keys = append(keys, k.jwk)
		}
	}
	return keys
}

// The beginnings of secrets, for people and for those who scan for leaked ones.
const (
	keyPrefix     = "tnk_" // API key: tnk_<id>_<43 characters>
	refreshPrefix = "tnr_" // refresh token: tnr_<id>_<86 characters>
)

// newSecret makes a secret that names what it is of and has so many random bytes.
func newSecret(prefix string, id int64, random []byte) string {
	return prefix + formatID(id) + "_" + base64.RawURLEncoding.EncodeToString(random)
}

// secretID gives the id in a secret.
func secretID(text, prefix string) (int64, bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	number, _, split := strings.Cut(rest, "_")
	id, err := strconv.ParseInt(number, 10, 64)
	return id, ok && split && err == nil && id > 0 && formatID(id) == number
}

func drawBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// idEpoch is where ids of keys, logins and shares begin.
var idEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// drawTimedID draws the id of a key, login, share or webhook: the second and 16 random
// bits, below 2^53 for callers whose numbers are doubles. It rises with time, so
// that lists are in order, and needs no sequence; a collision is drawn again.
func drawTimedID(now time.Time) int64 {
	b := drawBytes(2)
	return max(1, int64(now.Sub(idEpoch)/time.Second))<<16 | int64(b[0])<<8 | int64(b[1])
}

// DrawID draws an id of this kind for an invitation that is not made over REST.
func DrawID(now time.Time) int64 { return drawTimedID(now) }

func formatID(id int64) string { return strconv.FormatInt(id, 10) }
