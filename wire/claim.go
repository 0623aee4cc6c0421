package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// claimPrefix makes a claim code recognisable, as codePrefix does for auth codes.
const claimPrefix = "tnc_"

const (
	claimVersion = 1
	claimBound   = 1 << 0 // good for one user name only
	claimSize    = 1 + 1 + 8 + 8 + SignatureSize
)

// claimContext separates these signatures from any other use of the key.
const claimContext = "tunnox claim\x00"

// ErrClaimCode means that a text is no claim code.
var ErrClaimCode = errors.New(`a claim code is "tnc_" and 110 characters of base64url`)

// ClaimCode is what the owner of an anonymous agent shows to whoever is to take
// its client over: a statement about the client, signed with its credential. No
// server keeps a secret for it, and ids cannot be guessed into one.
type ClaimCode struct {
	ClientID  int64
	ExpiresAt time.Time // to the second
	Bound     bool      // for one user name, which is not in the code

	signature []byte
}

// ClaimCode makes a claim code for a client that the credential proves. With a
// user name only that user can use it.
func (c Credential) ClaimCode(clientID int64, username string, expires time.Time) (string, error) {
	if !c.Valid() || clientID <= 0 {
		return "", errors.New("make a claim code: there is no registered identity")
	}
	code := ClaimCode{ClientID: clientID, ExpiresAt: expires, Bound: username != ""}
	text := append(code.head(), ed25519.Sign(c.key, code.input(username))...)
	return claimPrefix + base64.RawURLEncoding.EncodeToString(text), nil
}

// ParseClaimCode reads what ClaimCode wrote, with space around it allowed. The
// code is not verified yet.
func ParseClaimCode(text string) (ClaimCode, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), claimPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(b) != claimSize || b[0] != claimVersion || b[1]&^claimBound != 0 {
		return ClaimCode{}, ErrClaimCode
	}
	c := ClaimCode{Bound: b[1]&claimBound != 0, ClientID: int64(binary.BigEndian.Uint64(b[2:])),
		ExpiresAt: time.Unix(int64(binary.BigEndian.Uint64(b[10:])), 0).UTC(), signature: b[18:]}
	if c.ClientID <= 0 {
		return ClaimCode{}, ErrClaimCode
	}
	return c, nil
}

// Client gives the client the code is of.
func (c ClaimCode) Client() int64 { return c.ClientID }

// Verify reports whether the owner of the private half of the key made this code, for
// this user name or for all, and whether the code has not expired.
func (c ClaimCode) Verify(publicKey []byte, username string, now time.Time) error {
	if !c.Bound {
		username = ""
	}
	if len(publicKey) != PublicKeySize || !ed25519.Verify(publicKey, c.input(username), c.signature) {
		return fmt.Errorf("verify a claim code: %w", BadCredential)
	}
	if !now.Before(c.ExpiresAt) {
		return errors.New("verify a claim code: it has expired")
	}
	return nil
}

func (c ClaimCode) head() []byte {
	b := []byte{claimVersion, 0}
	if c.Bound {
		b[1] |= claimBound
	}
	b = binary.BigEndian.AppendUint64(b, uint64(c.ClientID))
	return binary.BigEndian.AppendUint64(b, uint64(c.ExpiresAt.Unix()))
}

// input is the bytes that are signed: user names are compared without case.
func (c ClaimCode) input(username string) []byte {
	return append(append([]byte(claimContext), c.head()...), strings.ToLower(username)...)
}
