package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTestDir(t *testing.T, path string) *dataDir {
	t.Helper()
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() }) // a test may have closed it
	return d
}

func TestDataDirectoryIsPrivateAndHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openTestDir(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if !d.fresh {
		t.Error("a new directory is fresh")
	}
	if _, err := openDataDir(path); err == nil || !strings.HasSuffix(err.Error(), "is used by another tunnoxd") {
		t.Errorf("a second owner: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	openTestDir(t, path)
}

func TestAPIKeyIsDrawnOnceAndPrivate(t *testing.T) {
	d := openTestDir(t, t.TempDir())
	key, err := loadAPIKey(d, "")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := base64.RawURLEncoding.DecodeString(key.secret); err != nil || len(b) != 32 {
		t.Errorf("the key has %d bytes, %v; want 256 bits", len(b), err)
	}
	if info, err := os.Stat(d.file("api-key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := loadAPIKey(d, "")
	if err != nil || again != key {
		t.Errorf("the second start has another key: %v", err)
	}
}

func TestAPIKeysThatCanBeGuessedAreRefused(t *testing.T) {
	d := openTestDir(t, t.TempDir())
	for name, key := range map[string]string{"31 characters": strings.Repeat("k", 31), "spaces": strings.Repeat("k ", 20)} {
		_, err := loadAPIKey(d, key)
		if err == nil || !strings.Contains(err.Error(), "TUNNOX_API_KEY") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(d.file("api-key")); err == nil {
		t.Error("a key from the environment was written to a file")
	}
	if k, err := loadAPIKey(d, strings.Repeat("k", 32)); err != nil || k.secret != strings.Repeat("k", 32) {
		t.Errorf("32 characters: %v", err)
	}
	if err := os.WriteFile(d.file("api-key"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadAPIKey(d, ""); err == nil {
		t.Error("an empty key file was accepted")
	}
}

func TestFilesAreReplacedWhole(t *testing.T) {
	d := openTestDir(t, t.TempDir())
	for range 2 {
		if err := d.writeAddresses(map[string]string{"api": "127.0.0.1:1"}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(d.file("addresses.json")); err != nil || !strings.Contains(string(b), `"api": "127.0.0.1:1"`) {
		t.Errorf("got %q, %v", b, err)
	}
	entries, err := os.ReadDir(d.path)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for range 2 {
		if err := d.removeAddresses(); err != nil {
			t.Errorf("take back: %v", err)
		}
	}
	if err := replaceFile(filepath.Join(d.path, "none", "x"), nil, 0o600); err == nil {
		t.Error("a write into no directory was a success")
	}
}

func TestNodeKeyStays(t *testing.T) {
	d := openTestDir(t, t.TempDir())
	first, err := d.nodeKey()
	if err != nil || len(first) < 20 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := d.nodeKey(); err != nil || again != first {
		t.Errorf("%q, %v", again, err)
	}
}

func TestAddressesForScriptsAndForAgents(t *testing.T) {
	for given, want := range map[string]string{
		"[::]:8080": "127.0.0.1:8080", "0.0.0.0:8080": "127.0.0.1:8080", "127.0.0.1:9000": "127.0.0.1:9000", "[::1]:1": "[::1]:1",
	} {
		if got := dialable(given); got != want {
			t.Errorf("dialable %s: %s, want %s", given, got, want)
		}
	}
	ls, err := openListeners(binding{api: "127.0.0.1:0", agents: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if got := reachable("", ls.agents.Addr()); got != ls.agents.Addr().String() {
		t.Errorf("a certain address: %s", got)
	}
	if got := reachable("example.org:443", ls.agents.Addr()); got != "example.org:443" {
		t.Errorf("advertised: %s", got)
	}
	if bound := ls.addresses(); len(bound) != 4 || bound["quic"] != bound["agents"] || bound["ws"] != bound["agents"] {
		t.Errorf("bound: %v", ls.addresses())
	}
	if _, err := openListeners(binding{api: "127.0.0.1:0", agents: ls.agents.Addr().String()}); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("in use: %v", err)
	}
	if err := ls.close(); err != nil {
		t.Fatal(err)
	}
	if err := ls.close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
