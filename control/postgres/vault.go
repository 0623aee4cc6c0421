package postgres

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/control/postgres/internal/queries"
)

// ErrSealed: a secret was encrypted with another key than the present one.
var ErrSealed = errors.New("control: the cluster's secrets were encrypted with another key")

// Vault stores the cluster's secrets in the database, encrypted: each with AES-256-GCM
// under a key of its own. These keys are derived from one key that every control plane
// has and no database contains.
type Vault struct {
	q    *queries.Queries
	keys [][]byte // the first encrypts, any decrypts
}

// Vault gives the vault for key. before are earlier keys: a secret that was encrypted
// with one of them is encrypted again with key when it is loaded.
func (c *Cluster) Vault(key []byte, before ...[]byte) *Vault {
	return &Vault{q: c.q, keys: append([][]byte{key}, before...)}
}

// HasSecrets reports whether there are secrets, whatever their key.
func (c *Cluster) HasSecrets(ctx context.Context) (bool, error) {
	any, err := c.q.AnySecret(ctx)
	if err != nil {
		return false, fmt.Errorf("look for the cluster's secrets: %w", err)
	}
	return any, nil
}

// Load implements [control.Vault].
func (v *Vault) Load(ctx context.Context, name string) ([]byte, error) {
	secret, sealed, key, err := v.load(ctx, name)
	if err != nil || key == 0 {
		return secret, err
	}
	again, err := seal(v.keys[0], name, secret)
	if err != nil {
		return nil, err
	}
	// Another control plane may have written the same first, which is as good.
	if _, err := v.q.ReplaceSecret(ctx, queries.ReplaceSecretParams{Name: name, Old: sealed, Next: again}); err != nil {
		return nil, fmt.Errorf("encrypt secret %s again: %w", name, err)
	}
	return secret, nil
}

// load gives a secret, its stored form, and the index of its key.
func (v *Vault) load(ctx context.Context, name string) (secret, sealed []byte, key int, err error) {
	sealed, err = v.q.Secret(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, 0, control.ErrAbsent
	}
	if err != nil {
		return nil, nil, 0, fmt.Errorf("load secret %s: %w", name, err)
	}
	for i, key := range v.keys {
		if secret, ok := open(key, name, sealed); ok {
			return secret, sealed, i, nil
		}
	}
	return nil, nil, 0, ErrSealed
}

// Create implements [control.Vault].
func (v *Vault) Create(ctx context.Context, name string, secret []byte) error {
	sealed, err := seal(v.keys[0], name, secret)
	if err != nil {
		return err
	}
	n, err := v.q.CreateSecret(ctx, queries.CreateSecretParams{Name: name, Sealed: sealed})
	if err != nil {
		return fmt.Errorf("create secret %s: %w", name, err)
	}
	if n == 0 {
		return control.ErrPresent
	}
	return nil
}

// Replace implements [control.Vault].
func (v *Vault) Replace(ctx context.Context, name string, old, next []byte) error {
	is, was, _, err := v.load(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(is, old) {
		return control.ErrChanged
	}
	sealed, err := seal(v.keys[0], name, next)
	if err != nil {
		return err
	}
	n, err := v.q.ReplaceSecret(ctx, queries.ReplaceSecretParams{Name: name, Old: was, Next: sealed})
	if err != nil {
		return fmt.Errorf("replace secret %s: %w", name, err)
	}
	if n == 0 {
		return control.ErrChanged
	}
	return nil
}

// An encrypted secret is a version, a salt for its key, a nonce, and the output of
// AES-GCM. The name is authenticated, so that one secret cannot replace another.
const (
	sealVersion = 1
	saltSize    = 16
)

func seal(key []byte, name string, secret []byte) ([]byte, error) {
	sealed := make([]byte, 1+saltSize, 1+saltSize+64+len(secret))
	sealed[0] = sealVersion
	rand.Read(sealed[1:]) // never fails
	aead, err := cipherOf(key, sealed[1:])
	if err != nil {
		return nil, fmt.Errorf("encrypt secret %s: %w", name, err)
	}
	return append(sealed, aead.Seal(nil, nil, secret, []byte(name))...), nil
}

func open(key []byte, name string, sealed []byte) (secret []byte, ok bool) {
	if len(sealed) < 1+saltSize || sealed[0] != sealVersion {
		return nil, false
	}
	aead, err := cipherOf(key, sealed[1:1+saltSize])
	if err != nil {
		return nil, false
	}
	secret, err = aead.Open(nil, nil, sealed[1+saltSize:], []byte(name))
	return secret, err == nil
}

func cipherOf(key, salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, key, salt, "tunnox cluster secret", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
