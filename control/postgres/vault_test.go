package postgres

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/control"
)

var key = bytes.Repeat([]byte("k"), 32)

func TestVaultComparesAndCreates(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	v, ctx := c.Vault(key), t.Context()
	if some, err := c.HasSecrets(ctx); err != nil || some {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := v.Load(ctx, "x"); !errors.Is(err, control.ErrAbsent) {
		t.Errorf("got the error %v, want %v", err, control.ErrAbsent)
	}
	must(t, v.Create(ctx, "x", []byte("1")))
	if err := v.Create(ctx, "x", []byte("2")); !errors.Is(err, control.ErrPresent) {
		t.Errorf("got the error %v, want %v", err, control.ErrPresent)
	}
	if err := v.Replace(ctx, "x", []byte("2"), []byte("3")); !errors.Is(err, control.ErrChanged) {
		t.Errorf("got the error %v, want %v", err, control.ErrChanged)
	}
	must(t, v.Replace(ctx, "x", []byte("1"), []byte("3")))
	if b, err := v.Load(ctx, "x"); err != nil || string(b) != "3" {
		t.Errorf("%q, %v", b, err)
	}
	if err := v.Replace(ctx, "y", nil, []byte("3")); !errors.Is(err, control.ErrAbsent) {
		t.Errorf("got the error %v, want %v", err, control.ErrAbsent)
	}
	if some, err := c.HasSecrets(ctx); err != nil || !some {
		t.Errorf("%v, %v", some, err)
	}
}

// What the database holds is of use to nobody who does not have the key.
func TestSecretsAreSealed(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	ctx := t.Context()
	secret := bytes.Repeat([]byte("secret"), 10)
	must(t, c.Vault(key).Create(ctx, "x", secret))
	sealed, err := c.q.Secret(ctx, "x")
	must(t, err)
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("the secret can be read in the database")
	}
	other := bytes.Repeat([]byte("o"), 32)
	if _, err := c.Vault(other).Load(ctx, "x"); !errors.Is(err, ErrSealed) {
		t.Errorf("another key: %v", err)
	}
	if err := c.Vault(other).Replace(ctx, "x", secret, nil); !errors.Is(err, ErrSealed) {
		t.Errorf("another key: %v", err)
	}
	// A row that was put under another name, or changed.
	_, err = c.pool.Exec(ctx, "INSERT INTO cluster.secrets (name, sealed) VALUES ('y', $1), ('z', $2), ('short', '\\x01')", sealed, append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1))
	must(t, err)
	for _, name := range []string{"y", "z", "short"} {
		if _, err := c.Vault(key).Load(ctx, name); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The key changes: the one before opens it once more, and then no more.
	if b, err := c.Vault(other, key).Load(ctx, "x"); err != nil || !bytes.Equal(b, secret) {
		t.Errorf("with the key before: %q, %v", b, err)
	}
	if b, err := c.Vault(other).Load(ctx, "x"); err != nil || !bytes.Equal(b, secret) {
		t.Errorf("sealed anew: %q, %v", b, err)
	}
	if _, err := c.Vault(key).Load(ctx, "x"); !errors.Is(err, ErrSealed) {
		t.Errorf("the key before: %v", err)
	}
}

func TestControlPlanesThatStartAtOnceShareOneAuthority(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	const n = 8
	tokens := make([]string, n)
	var starting sync.WaitGroup
	for i := range n {
		starting.Go(func() {
			vault := c.Vault(key)
			a, err := control.OpenAuthority(t.Context(), vault, control.AuthorityOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			j, err := control.OpenJoinTokens(t.Context(), vault, a)
			if err != nil {
				t.Error(err)
				return
			}
			token, err := j.Current(t.Context())
			if err != nil {
				t.Error(err)
			}
			tokens[i] = token.Text() // the secret and the authority's pin
		})
	}
	starting.Wait()
	for i := range n {
		if tokens[i] != tokens[0] {
			t.Fatalf("control plane %d has another authority or join token", i)
		}
	}
}
