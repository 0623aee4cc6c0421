package seal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestKeyInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seal.key")
	if _, err := LoadKey(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is no file: %v", err)
	}
	key, err := LoadOrCreateKey(file)
	if err != nil || !key.Valid() {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	if again, err := LoadOrCreateKey(file); err != nil || again != key {
		t.Errorf("the second time: another key, %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file); err == nil {
		t.Error("a key that others can read was taken")
	}
	if err := os.WriteFile(file, []byte("tnxs_short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(file); !errors.Is(err, ErrSecret) {
		t.Errorf("a damaged file: %v", err)
	}
}
