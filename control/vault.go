package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Vault keeps the secrets that all control planes of a cluster share: the
// authority's key and the join token. What it keeps must be readable by control
// planes only.
type Vault interface {
	// Load gives a secret, or ErrAbsent.
	Load(ctx context.Context, name string) ([]byte, error)
	// Create keeps a secret that is not there yet, or gives ErrPresent: of two
	// control planes that start at once, one wins and the other loads.
	Create(ctx context.Context, name string, secret []byte) error
	// Replace puts next in the place of old, or gives ErrChanged when it is
	// something else by now.
	Replace(ctx context.Context, name string, old, next []byte) error
}

// What a [Vault] says instead of doing what it was asked.
var (
	ErrAbsent  = errors.New("control: no such secret")
	ErrPresent = errors.New("control: the secret is there already")
	ErrChanged = errors.New("control: the secret has changed meanwhile")
)

// The names under which secrets are kept.
const (
	secretAuthority = "cluster-ca"
	secretJoin      = "join-secret"
)

// FileVault keeps each secret in a file of a folder, readable by its owner only.
// It is for one control plane, or for several of one machine: Create is safe
// between processes, Replace within one.
type FileVault struct {
	dir string
	mu  sync.Mutex // held by Replace
}

// NewFileVault keeps secrets in dir, which must exist.
func NewFileVault(dir string) *FileVault { return &FileVault{dir: dir} }

func (v *FileVault) file(name string) string { return filepath.Join(v.dir, name) }

// Load implements [Vault].
func (v *FileVault) Load(_ context.Context, name string) ([]byte, error) {
	secret, err := os.ReadFile(v.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, fmt.Errorf("load secret: %w", err)
	}
	return secret, nil
}

// Create implements [Vault]. The file appears whole or not at all.
func (v *FileVault) Create(_ context.Context, name string, secret []byte) error {
	temporary, err := writeBeside(v.file(name), secret)
	if err != nil {
		return fmt.Errorf("create secret: %w", err)
	}
	defer func() { _ = os.Remove(temporary) }()
	// A link, unlike a rename, fails when somebody else was faster.
	err = os.Link(temporary, v.file(name))
	if errors.Is(err, fs.ErrExist) {
		return ErrPresent
	}
	if err != nil {
		return fmt.Errorf("create secret: %w", err)
	}
	return nil
}

// Replace implements [Vault].
func (v *FileVault) Replace(ctx context.Context, name string, old, next []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	is, err := v.Load(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(is, old) {
		return ErrChanged
	}
	return writeSecret(v.file(name), next)
}

// writeSecret makes or replaces a file that only its owner can read, whole or
// not at all.
func writeSecret(file string, secret []byte) error {
	temporary, err := writeBeside(file, secret)
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return errors.Join(fmt.Errorf("write secret: %w", err), os.Remove(temporary))
	}
	return nil
}

func writeBeside(file string, secret []byte) (temporary string, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(secret)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
