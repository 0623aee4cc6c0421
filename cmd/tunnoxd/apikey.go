package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// minKeyLength is the shortest API key that is accepted. There is no default key:
// attackers take over systems like this one by an empty or well-known key.
const minKeyLength = 32

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
		key := apiKey{secret: override, source: "TUNNOX_API_KEY"}
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
	key = apiKey{secret: strings.TrimSpace(string(b)), source: path}
	return key, true, key.check()
}

func createAPIKey(path string) (apiKey, error) {
	var random [32]byte
	rand.Read(random[:]) // never fails
	key := apiKey{secret: base64.RawURLEncoding.EncodeToString(random[:]), source: path}
	if err := replaceFile(path, []byte(key.secret+"\n"), 0o600); err != nil {
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
	if strings.ContainsAny(k.secret, " \t\r\n") {
		return fmt.Errorf("the API key in %s contains white space, which a header cannot carry", k.source)
	}
	return nil
}
