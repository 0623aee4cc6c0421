package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/oidcauth"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/wholefile"
)

// sharedKey is a key that every control plane of a cluster needs. It is stored in a
// file of the data directory and, for the others, among the cluster's secrets.
type sharedKey struct {
	file string
	draw func(ctx context.Context) ([]byte, error) // nil: nobody may make one now
	sane func([]byte) error                        // refuses an invalid key before others get it
}

// adoptKeys makes sure that the data directory has the cluster's keys before they are
// loaded. A key in the directory is given to the cluster, a missing key is copied from
// the cluster, and a key that nobody has is made. A copy of the database does not
// contain the keys in readable form: they are encrypted with the API key.
func (p *process) adoptKeys(ctx context.Context, b *backend, key apiKey) error {
	if b.shared == nil {
		return nil // there is no other process
	}
	vault := p.vault(b.shared, key)
	// Without --state no other part would open a secret, and notice that the key is
	// wrong.
	if _, err := vault.Load(ctx, auditKeyFile); err != nil && !errors.Is(err, control.ErrAbsent) {
		return otherKey(err, key)
	}
	keys := []sharedKey{{auditKeyFile, func(ctx context.Context) ([]byte, error) {
		if _, signed, err := b.raw.LastSeal(ctx); err != nil || signed {
			return nil, err // a new key would not match the signed checkpoints
		}
		secret, err := audit.NewKey()
		return []byte(secret + "\n"), err
	}, func(text []byte) error { _, err := audit.ParseKey(string(text)); return err }}}
	keys = append(keys, sharedKey{webhookKeyFile, func(context.Context) ([]byte, error) { return webhook.NewKey(), nil },
		func(text []byte) error { _, err := webhook.ParseKeys(text); return err }})
	keys = append(keys, sharedKey{visitorKeyFile, func(context.Context) ([]byte, error) { return oidcauth.NewKey(), nil },
		func(text []byte) error { _, err := oidcauth.ParseKey(text); return err }})
	if p.cfg.JWTKey == "" {
		keys = append(keys, sharedKey{jwtKeyFile, func(context.Context) ([]byte, error) {
			_, text, err := httpapi.NewSigningKey()
			return text, err
		}, func(text []byte) error { _, err := httpapi.ParseSigningKey(text); return err }})
	}
	for _, k := range keys {
		if err := k.adopt(ctx, p.dir.file(k.file), vault); err != nil {
			return otherKey(fmt.Errorf("share %s with other control planes: %w", k.file, err), key)
		}
	}
	return p.showAuditKey()
}

func (k sharedKey) adopt(ctx context.Context, path string, vault control.Vault) error {
	own, err := os.ReadFile(path)
	if err == nil {
		if err := k.sane(own); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := vault.Create(ctx, k.file, own); err != nil && !errors.Is(err, control.ErrPresent) {
			return err
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	shared, err := vault.Load(ctx, k.file)
	if errors.Is(err, control.ErrAbsent) {
		if shared, err = k.draw(ctx); err != nil || shared == nil {
			return err
		}
		if err = vault.Create(ctx, k.file, shared); errors.Is(err, control.ErrPresent) {
			shared, err = vault.Load(ctx, k.file) // another control plane was faster
		}
	}
	if err != nil {
		return err
	}
	return wholefile.Write(path, shared, 0o600)
}

// showAuditKey writes the public half of the key that signs checkpoints beside the key.
func (p *process) showAuditKey() error {
	key, err := audit.LoadKey(p.dir.file(auditKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return wholefile.Write(p.dir.file(auditPublicFile), []byte(key.VerifierKey()+"\n"), 0o644)
}
