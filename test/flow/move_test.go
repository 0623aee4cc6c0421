package flow

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestOutgrowingOneMachine is the procedure of docs/operations.md: an embedded server
// becomes one over Postgres and Redis. Ids, credentials and proofs stay the same, and
// agents connect again without help.
func TestOutgrowingOneMachine(t *testing.T) {
	s := programs.Serve(t)
	p := newPair(t, s)
	service := programs.Listen(t, answering("service")).Port
	m := p.mapping(t, service)
	waitAnswer(t, m.LocalPort, "service:before")
	key := []string{"Idempotency-Key", "made-before"}
	var before programs.User
	p.Do(t, http.MethodPost, path("/users"), map[string]any{"username": "bob", "email": "bob@example.org"}, &before, key...)
	var checkpoint struct {
		Size       int64
		Checkpoint string
		RootHash   string `json:"root_hash"`
	}
	saved := p.Do(t, http.MethodGet, path("/audit/checkpoint"), nil, &checkpoint)
	kept := filepath.Join(t.TempDir(), "checkpoint.json")
	if err := os.WriteFile(kept, saved.Body, 0o600); err != nil {
		t.Fatal(err)
	}
	events := p.Do(t, http.MethodGet, path("/events?limit=500"), nil, nil).Body
	proof := path("/audit/proof/inclusion?position=2&size=%d", checkpoint.Size)
	proven := p.Do(t, http.MethodGet, proof, nil, nil).Body

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	postgres, redis := services.Postgres(t), services.Redis(t)
	file := filepath.Join(t.TempDir(), "log.ndjson")
	tunnoxd(t, "export", "--data", s.Dir, "--out", file)
	tunnoxd(t, "audit", "verify", "--export", file, "--checkpoint", kept)
	tunnoxd(t, "import", "--in", file, "--postgres", postgres)
	tunnoxd(t, "audit", "verify", "--postgres", postgres, "--checkpoint", kept)

	s.RestartWith(t, "--postgres", postgres, "--redis", redis)
	waitAnswer(t, m.LocalPort, "service:after")
	if got := p.Do(t, http.MethodGet, path("/events?limit=500"), nil, nil).Body; string(got) != string(events) {
		t.Errorf("the log reads\n%s\nand was\n%s", got, events)
	}
	if got := p.Do(t, http.MethodGet, proof, nil, nil).Body; string(got) != string(proven) {
		t.Errorf("the proof is\n%s\nand was\n%s", got, proven)
	}
	var again, next programs.User
	p.Do(t, http.MethodPost, path("/users"), map[string]any{"username": "bob", "email": "bob@example.org"}, &again, key...)
	if again != before {
		t.Errorf("a repeated command made %+v, before it made %+v", again, before)
	}
	p.Do(t, http.MethodPost, path("/users"), map[string]any{"username": "carol", "email": "carol@example.org"}, &next)
	if next.ID <= before.ID {
		t.Errorf("the next user is %d, there was %d", next.ID, before.ID)
	}
	p.Refused(t, http.StatusConflict, "username_taken", http.MethodPost, path("/users"), map[string]any{"username": "BOB", "email": "x@example.org"})
	// The new checkpoint continues the old one, with the same key.
	var consistency struct {
		From string `json:"from_root_hash"`
		To   int64
	}
	p.Do(t, http.MethodGet, path("/audit/checkpoint"), nil, nil)
	p.Do(t, http.MethodGet, path("/audit/proof/consistency?from=%d", checkpoint.Size), nil, &consistency)
	if consistency.From != checkpoint.RootHash || consistency.To <= checkpoint.Size {
		t.Errorf("the tree goes on as %+v from %+v", consistency, checkpoint)
	}
	tunnoxd(t, "audit", "verify", "--postgres", postgres, "--checkpoint", kept)

	// And back again.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	tunnoxd(t, "export", "--postgres", postgres, "--data", s.Dir, "--out", file)
	if err := os.Rename(filepath.Join(s.Dir, "tunnox.db"), filepath.Join(s.Dir, "tunnox.old")); err != nil {
		t.Fatal(err)
	}
	tunnoxd(t, "import", "--in", file, "--data", s.Dir)
	s.RestartWith(t)
	waitAnswer(t, m.LocalPort, "service:back again")
	if got := p.Do(t, http.MethodGet, proof, nil, nil).Body; string(got) != string(proven) {
		t.Errorf("the proof is\n%s\nand was\n%s", got, proven)
	}
}

// tunnoxd runs a command of the server that ends by itself.
func tunnoxd(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runTunnoxd(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func runTunnoxd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs.Build(t), "tunnoxd"), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir}
	ended := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer ended.Stop()
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("tunnoxd %v ended with %d:\n%s", args, exit.ExitCode(), out)
	}
	return string(out), err
}
