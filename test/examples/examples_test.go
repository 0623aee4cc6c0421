package examples

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

// TestExamples runs each example against one server, as their pages say.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "./agent", "./mapping", "./webhook")
	build.Dir = "../../examples"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the examples: %v\n%s", err, out)
	}
	s := programs.Serve(t)
	limit := 20 * time.Second

	// A receiver that is told of everything from here on.
	secretFile := filepath.Join(dir, "secret")
	receiver := programs.Start(t, filepath.Join(dir, "webhook"), nil, "--listen", "127.0.0.1:0", "--secret-file", secretFile)
	address := receiver.Says(`listening on (\S+)`, limit)[1]
	var made struct{ Secret string }
	s.API.Do(t, http.MethodPost, "/api/v1/webhooks", map[string]any{"url": "http://" + address}, &made)
	if !strings.HasPrefix(made.Secret, "whsec_") {
		t.Fatalf("the new webhook has the secret %q", made.Secret)
	}
	if err := os.WriteFile(secretFile, []byte(made.Secret), 0o600); err != nil {
		t.Fatal(err)
	}

	// A mapping made over REST, and two agents that carry it.
	local := programs.FreePort(t)
	service := programs.Listen(t, programs.Echo).Port
	mapping := programs.Start(t, filepath.Join(dir, "mapping"), []string{"TUNNOX_API_KEY=" + s.API.Key},
		"--api", s.API.URL, "--listen", fmt.Sprint(local), "--service", fmt.Sprint(service))
	var ends struct {
		Source     int64
		SourceCode string `json:"source_auth_code"`
		Target     int64
		TargetCode string `json:"target_auth_code"`
	}
	if err := json.Unmarshal([]byte(mapping.Says(`(?m)^({.*})$`, limit)[1]), &ends); err != nil {
		t.Fatal(err)
	}
	s.Join(t, s.API, programs.Client{ID: ends.Source, AuthCode: ends.SourceCode})
	s.Join(t, s.API, programs.Client{ID: ends.Target, AuthCode: ends.TargetCode})
	programs.Eventually(t, limit, func() error {
		got, err := programs.Ask(local, []byte("hello"))
		if err == nil && string(got) != "hello" {
			err = fmt.Errorf("the mapping answers %q", got)
		}
		return err
	})
	receiver.Says(`mapping_created at position \d+`, limit)

	// The embedded agent gets an identity of its own, and the webhook hears of it.
	embedded := programs.Start(t, filepath.Join(dir, "agent"), nil,
		"--server", s.Agents, "--pin", s.Pin, "--state", filepath.Join(t.TempDir(), "client.json"))
	embedded.Says(`online as 2\d{8} at node-\d+`, limit)
	receiver.Says(`client_registered at position \d+`, limit)
}
