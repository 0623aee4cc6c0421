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

	"github.com/tunnox-net/tunnox/wholefile"
)

// Vault stores the secrets that all control planes of a cluster share: the authority's
// key and the join token. Only control planes may be able to read them.
type Vault interface {
	// Load gives a secret, or ErrAbsent.
	Load(ctx context.Context, name string) ([]byte, error)
	// Create stores a secret that is not there yet, or gives ErrPresent: of two control
	// planes that start at once, one wins and the other loads the secret.
	Create(ctx context.Context, name string, secret []byte) error
	// Replace replaces old by next, or gives ErrChanged when the secret is not old any
	// more.
	Replace(ctx context.Context, name string, old, next []byte) error
}

// The errors of a [Vault].
var (
	ErrAbsent  = errors.New("control: no such secret")
	ErrPresent = errors.New("control: the secret is there already")
	ErrChanged = errors.New("control: the secret has changed")
)

// The names of the stored secrets.
const (
	secretAuthority = "cluster-ca"
	secretJoin      = "join-secret"
)

// FileVault stores each secret in a file of a folder, readable by its owner only. It is
// for one control plane, or for several on one machine: Create is safe between
// processes, Replace within one.
type FileVault struct {
	dir string
	mu  sync.Mutex // held by Replace
}

// NewFileVault stores secrets in dir, which must exist.
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
	// A link fails when another process was faster; a rename does not.
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

// writeSecret makes or replaces a file that only its owner can read, whole or not at
// all.
func writeSecret(file string, secret []byte) error {
	if err := wholefile.Write(file, secret, 0o600); err != nil {
		return fmt.Errorf("write secret: %w", err)
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
