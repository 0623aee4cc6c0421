package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/tunnox-net/tunnox/wholefile"
)

// minKeyLength is the shortest API key that is accepted. There is no default key:
// attackers take over systems like this one by an empty or well-known key.
const minKeyLength = 32

// minDifferent is how many different characters a key must have. 32 random hexadecimal
// digits have fewer than 8 once in 10^9 keys.
const minDifferent = 8

// ofUser matches what the API gives to users: keys, refresh tokens, and access tokens,
// which are JWTs.
var ofUser = regexp.MustCompile(`^tn[a-z]+_|^eyJ[^.]*\.[^.]*\.[^.]*$`)

// apiKey is the operator's key of the REST API.
type apiKey struct {
	secret string
	source string // where the key comes from, for people
}

// loadAPIKey gives the key from the environment, or else from the data directory, or
// else makes one there: 256 bits, readable by the owner only.
func loadAPIKey(dir *dataDir, override string) (apiKey, error) {
	key, ok, err := readAPIKey(dir, override)
	if err != nil || ok {
		return key, err
	}
	return createAPIKey(dir.file("api-key"))
}

// readAPIKey gives the present key; ok is false when there is none.
func readAPIKey(dir *dataDir, override string) (key apiKey, ok bool, err error) {
	if override != "" {
		key := apiKey{secret: override, source: "TUNNOXD_API_KEY"}
		if err := key.check(); err != nil {
			return apiKey{}, false, usageError{err}
		}
		return key, true, nil
	}
	path := dir.file("api-key")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return apiKey{}, false, nil
	}
	if err != nil {
		return apiKey{}, false, fmt.Errorf("read API key: %w", err)
	}
	if err := private(path, os.Geteuid()); err != nil {
		return apiKey{}, false, err
	}
	key = apiKey{secret: strings.TrimSpace(string(b)), source: path}
	return key, true, key.check()
}

func createAPIKey(path string) (apiKey, error) {
	var random [32]byte
	rand.Read(random[:]) // never fails
	key := apiKey{secret: base64.RawURLEncoding.EncodeToString(random[:]), source: path}
	if err := wholefile.Write(path, []byte(key.secret+"\n"), 0o600); err != nil {
		return apiKey{}, err
	}
	return key, nil
}

// check refuses a key that can be guessed. Its error never contains the key.
func (k apiKey) check() error {
	if len(k.secret) < minKeyLength {
		return fmt.Errorf("the API key in %s has %d characters; it needs at least %d, for example from: openssl rand -base64 32",
			k.source, len(k.secret), minKeyLength)
	}
	if ofUser.MatchString(k.secret) {
		return fmt.Errorf("the API key in %s is a key or token of a user; the operator's key must be another one, for example from: openssl rand -base64 32", k.source)
	}
	different := map[rune]bool{}
	for _, r := range k.secret {
		different[r] = true
	}
	if len(different) < minDifferent {
		return fmt.Errorf("the API key in %s has %d different characters and can be guessed; it needs at least %d, for example from: openssl rand -base64 32",
			k.source, len(different), minDifferent)
	}
	if strings.ContainsAny(k.secret, " \t\r\n") {
		return fmt.Errorf("the API key in %s contains white space, which a header cannot carry", k.source)
	}
	return nil
}
