package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/wire"
)

func TestStateKeepsTheIdentity(t *testing.T) {
	s := &State{File: filepath.Join(t.TempDir(), "deep", "down", "client.json")}
	if id, err := s.Load(); err != nil || id.ClientID != 0 || id.Credential.Valid() {
		t.Fatalf("nothing was saved, and it gives %v, %v", id, err)
	}
	credential, err := wire.NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{0, 200000007} { // before and after it was registered
		if err := s.Save(Identity{ClientID: id, Credential: credential}, "server:1"); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load()
		if err != nil || got.ClientID != id || got.Credential.AuthCode() != credential.AuthCode() {
			t.Errorf("saved %d, loaded %v, %v", id, got, err)
		}
	}
	info, err := os.Stat(s.File)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(s.File)); len(left) != 1 {
		t.Errorf("%d files are left, want one", len(left))
	}
}

func TestStateRefusesWhatItCannotTrust(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"open to others": {`{}`, 0o644, "chmod 600"},
		"not JSON":       {`half a fi`, 0o600, "not valid JSON"},
		"no credential":  {`{"client_id": 5}`, 0o600, "holds no identity"},
		"bad credential": {`{"client_id": 5, "auth_code": "tnx_short"}`, 0o600, "holds no identity"},
	} {
		file := filepath.Join(t.TempDir(), "client.json")
		if err := os.WriteFile(file, []byte(tt.content), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := (&State{File: file}).Load()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "tnx_") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A save that fails leaves the old identity.
func TestFailedSaveKeepsTheOldIdentity(t *testing.T) {
	dir := t.TempDir()
	s := &State{File: filepath.Join(dir, "client.json")}
	first, _ := wire.NewCredential()
	if err := s.Save(Identity{ClientID: 7, Credential: first}, ""); err != nil {
		t.Fatal(err)
	}
	blocked := &State{File: filepath.Join(s.File, "client.json")} // below a file, not a folder
	if err := blocked.Save(Identity{ClientID: 8, Credential: first}, ""); err == nil {
		t.Error("no error")
	}
	if id, err := s.Load(); err != nil || id.ClientID != 7 {
		t.Errorf("got %v, %v", id, err)
	}
	var none *State
	if err := none.Save(Identity{}, ""); err != nil {
		t.Error(err)
	}
}
