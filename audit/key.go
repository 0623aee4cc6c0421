package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Key signs checkpoints. It is stored in a file of the control plane: a person with
// access to the database must not have the key too.
type Key struct {
	signer note.Signer
	public string
}

// NewKey draws a key. Its name also becomes the name of a log that has none yet.
func NewKey() (secret string, err error) {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	secret, _, err = note.GenerateKey(rand.Reader, "tunnox-"+hex.EncodeToString(id[:]))
	if err != nil {
		return "", fmt.Errorf("make an audit key: %w", err)
	}
	return secret, nil
}

// ParseKey reads a key that NewKey drew.
func ParseKey(secret string) (*Key, error) {
	secret = strings.TrimSpace(secret)
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, errors.New("audit: this is not a key that signs checkpoints")
	}
	// PRIVATE+KEY+name+hash+base64 of the algorithm and the seed; base64 may hold a "+"
	parts := strings.SplitN(secret, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, errors.New("audit: the key is not Ed25519")
	}
	public, ok := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("audit: the key is not Ed25519")
	}
	verifier, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	return &Key{signer: signer, public: verifier}, nil
}

// VerifierKey gives the public half, for verifiers: name+hash+base64.
func (k *Key) VerifierKey() string { return k.public }

// String names the key without showing it.
func (k *Key) String() string { return keyID(k.signer) }

// LoadKey reads a key file; it gives fs.ErrNotExist when there is none.
func LoadKey(path string) (*Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read audit key: %w", err)
	}
	key, err := ParseKey(string(b))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return key, nil
}

// CreateKey makes a key file that only its owner can read. If two processes make it at
// once, one wins and both read the same key.
func CreateKey(path string) (*Key, error) {
	secret, err := NewKey()
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("make audit key: %w", err)
	}
	_, err = file.WriteString(secret + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		if err = os.Link(file.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err = errors.Join(err, os.Remove(file.Name())); err != nil {
		return nil, fmt.Errorf("make audit key: %w", err)
	}
	return LoadKey(path)
}

// ParseVerifiers reads public keys, one in each line. Empty lines and lines that begin
// with # are skipped.
func ParseVerifiers(text string) ([]note.Verifier, error) {
	var keys []note.Verifier
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		v, err := note.NewVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("audit: %.60q is not a verifier key (name+hash+base64)", line)
		}
		keys = append(keys, v)
	}
	return keys, nil
}
