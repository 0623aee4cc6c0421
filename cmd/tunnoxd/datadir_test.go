package main

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/wholefile"
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
	for name, key := range map[string]string{"31 characters": strongKey('k')[:31], "spaces": strings.Repeat("k ", 20), "one letter": strings.Repeat("k", 40),
		"a user's key": "tnk_100000001_" + strings.Repeat("abcdefgh", 5), "a refresh token": "tnr_7_" + strings.Repeat("abcdefgh", 9),
		"an access token": "eyJhbGciOiJFUzI1NiJ9." + strings.Repeat("abcdefgh", 9) + ".abcdefgh"} {
		_, err := loadAPIKey(d, key)
		if err == nil || !strings.Contains(err.Error(), "TUNNOXD_API_KEY") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(d.file("api-key")); err == nil {
		t.Error("a key from the environment was written to a file")
	}
	if k, err := loadAPIKey(d, strongKey('k')); err != nil || k.secret != strongKey('k') {
		t.Errorf("32 characters: %v", err)
	}
	if err := os.WriteFile(d.file("api-key"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadAPIKey(d, ""); err == nil {
		t.Error("an empty key file was accepted")
	}
}

// strongKey gives a key of 32 characters, another one for each letter.
func strongKey(letter byte) string { return "0123456789abcdef" + strings.Repeat(string(letter), 16) }

// Who can read the files of a server can act as it: what others can read, or have put
// there, is refused and named.
func TestFilesThatOthersCanReadAreRefused(t *testing.T) {
	dir := t.TempDir()
	d := openTestDir(t, dir)
	if _, err := loadAPIKey(d, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.file("addresses.json"), []byte("{}"), 0o644); err != nil { //nolint:gosec // it is for everybody
		t.Fatal(err)
	}
	if err := d.checkFiles(os.Geteuid()); err != nil {
		t.Errorf("as it was made: %v", err)
	}
	if err := d.checkFiles(os.Geteuid() + 1); os.Geteuid() != 0 && err == nil {
		t.Error("the files of another account were accepted")
	}
	for mode, wrong := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o604: true, 0o602: true} {
		if err := os.Chmod(d.file("api-key"), mode); err != nil {
			t.Fatal(err)
		}
		err := d.checkFiles(os.Geteuid())
		if (err != nil) != wrong || wrong && !strings.Contains(err.Error(), d.file("api-key")) {
			t.Errorf("mode %#o: %v", mode, err)
		}
		if _, _, err := readAPIKey(d, ""); (err != nil) != wrong {
			t.Errorf("reading a key of mode %#o: %v", mode, err)
		}
	}
	if err := errors.Join(os.Chmod(d.file("api-key"), 0o600), os.Chown(d.file("api-key"), 4711, -1)); err == nil {
		if err := d.checkFiles(os.Geteuid()); err == nil || !strings.Contains(err.Error(), "4711") {
			t.Errorf("a file of another account: %v", err)
		}
	} else if os.Geteuid() == 0 {
		t.Error(err)
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
	if err := wholefile.Write(filepath.Join(d.path, "none", "x"), nil, 0o600); err == nil {
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
