package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tunnox-net/tunnox/control"
)

// A join token can be put where a forwarder finds it and nobody else reads it.
func TestJoinTokenIsWrittenForItsOwnerOnly(t *testing.T) {
	dir, shared := t.TempDir(), filepath.Join(t.TempDir(), "token")
	vault := control.NewFileVault(t.TempDir())
	authority, err := control.OpenAuthority(t.Context(), vault, control.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := control.OpenJoinTokens(t.Context(), vault, authority)
	if err != nil {
		t.Fatal(err)
	}
	want, err := tokens.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := want.Save(filepath.Join(dir, "join-token")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also over the one before
		var out bytes.Buffer
		if err := run(t.Context(), []string{"join-token", "--data", dir, "--out", shared}, nil, &out, &out); err != nil || out.Len() > 0 {
			t.Fatalf("%v, and it says %q", err, out.String())
		}
		got, err := control.LoadJoinToken(shared)
		if err != nil || got != want {
			t.Errorf("the file holds another token, %v", err)
		}
		if about, err := os.Stat(shared); err != nil || about.Mode().Perm() != 0o600 {
			t.Errorf("the file is %v, %v", about.Mode(), err)
		}
	}
}
