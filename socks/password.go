package socks

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
)

// maxRounds bounds what a hash can make its reader compute.
const maxRounds = 1_000_000

// Matches tells whether a password is the one of a hash, which is of the form
// pbkdf2-sha256$rounds$salt$hash. A hash of another form matches nothing.
func Matches(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha256" {
		return false
	}
	rounds, err := strconv.Atoi(parts[1])
	want, decodeErr := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil || decodeErr != nil || rounds < 1 || rounds > maxRounds || len(want) != sha256.Size {
		return false
	}
	got, err := pbkdf2.Key(sha256.New, password, []byte(parts[2]), rounds, sha256.Size)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}
