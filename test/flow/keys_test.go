package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// Two machines that have joined carry a mapping with encryption e2e, and nobody has typed a
// key. One of them takes another key while it runs, and everything is restarted.
func TestKeysThatNobodyTyped(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		p := &pair{API: s.API, server: s, user: s.API.CreateUser(t, "ann")}
		p.source, p.target = s.API.CreateClient(t, p.user.ID, "source"), s.API.CreateClient(t, p.user.ID, "target")
		here, there := t.TempDir(), t.TempDir()
		begin := func() {
			p.targetAgent = p.keyed(t, p.target, there, "--e2e-only")
			p.sourceAgent = p.keyed(t, p.source, here, "--e2e-only")
		}
		begin()
		service := programs.Listen(t, answering("service")).Port
		local := programs.FreePort(t)
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "tcp", "local_port": local, "target_host": "127.0.0.1", "target_port": service, "encryption": "e2e"}, nil)
		waitAnswer(t, local, "service:hello")
		live := programs.Dial(t, local)
		expect(t, live, "service:")

		// Both owners see the same phrase.
		var phrases [2]string
		for i, state := range []string{here, there} {
			programs.Eventually(t, 10*time.Second, func() error {
				said, err := tunnox(t, "agent", "verify", "--state", state)
				_, after, ok := strings.Cut(said, "phrase  ")
				phrases[i] = strings.TrimSpace(after)
				if err != nil || !ok || !strings.Contains(said, "number 1 in the server's log, proven") {
					return fmt.Errorf("%v: %s", err, said)
				}
				return nil
			})
		}
		if phrases[0] != phrases[1] || len(phrases[0]) != 47 {
			t.Errorf("the owners compare %q and %q", phrases[0], phrases[1])
		}

		// Another key, at either end; what runs goes on.
		for _, state := range []string{there, here} {
			said, err := tunnox(t, "agent", "key", "--rotate", "--state", state)
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			if _, err := seal.ParsePublicKey(said); err != nil {
				t.Errorf("the new key is %q, %v", said, err)
			}
			if again, err := tunnox(t, "agent", "key", "--state", state, "--client-id", fmt.Sprint(map[string]int64{here: p.source.ID, there: p.target.ID}[state])); err != nil || again != said {
				t.Errorf("the file has %q, %v, want %q", again, err, said)
			}
			if err := ask(local, "service:turned"); err != nil {
				t.Error(err)
			}
		}
		ask := "still"
		if _, err := live.Write([]byte(ask)); err != nil {
			t.Fatal(err)
		}
		expect(t, live, ask)
		announced(t, p, map[int64]int{p.source.ID: 2, p.target.ID: 2})

		// A restart of everything: nothing is announced again.
		for _, running := range []*programs.Process{p.sourceAgent, p.targetAgent, s.Process} {
			if err := running.Stop(); err != nil {
				t.Error(err)
			}
		}
		s.Restart(t)
		begin()
		waitAnswer(t, local, "service:again")
		announced(t, p, map[int64]int{p.source.ID: 2, p.target.ID: 2})
		if found, err := filepath.Glob(filepath.Join(here, "*.log.json")); err != nil || len(found) != 1 {
			t.Errorf("what the agent knows of the log is in %v, %v", found, err)
		}
	})
}

// A machine whose agent is a program in the foreground carries encrypted mappings, too.
func TestProgramsInTheForegroundHaveKeys(t *testing.T) {
	s := programs.Serve(t)
	user := s.API.CreateUser(t, "ann")
	service := programs.Listen(t, answering("service")).Port
	var ids [2]int64
	var states [2]string
	for i, name := range []string{"laptop", "datacentre"} {
		var made struct{ Code string }
		s.API.Do(t, "POST", "/api/v1/invites", map[string]any{"user_id": user.ID, "uses": 1}, &made)
		state := t.TempDir()
		states[i] = state
		join := programs.Start(t, "tunnox", nil, "join", made.Code, "--state", state, "--name", name)
		if err := join.Wait(20 * time.Second); err != nil {
			t.Fatalf("join: %v\n%s", err, join.Said(1<<10))
		}
		b, err := os.ReadFile(filepath.Join(state, "client.json"))
		if err != nil {
			t.Fatal(err)
		}
		var kept struct {
			ClientID int64 `json:"client_id"`
		}
		if err := json.Unmarshal(b, &kept); err != nil {
			t.Fatal(err)
		}
		ids[i] = kept.ClientID
		programs.Start(t, "tunnox", nil, "expose", fmt.Sprint(service), "--state", state)
		s.API.WaitOnline(t, ids[i])
	}
	local := programs.FreePort(t)
	s.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": user.ID, "source_client_id": ids[0],
		"target_client_id": ids[1], "protocol": "tcp", "local_port": local, "target_host": "127.0.0.1", "target_port": service, "encryption": "e2e"}, nil)
	waitAnswer(t, local, "service:hello")

	// They ask for encryption themselves, too.
	s.API.Do(t, http.MethodPut, path("/clients/%d", ids[1]), map[string]any{"commands": "all"}, nil)
	forward, get := programs.FreePort(t), programs.FreePort(t)
	programs.Start(t, "tunnox", nil, "forward", fmt.Sprint(forward), fmt.Sprintf("datacentre:%d", service), "--encryption", "e2e", "--state", states[0])
	waitAnswer(t, forward, "service:forward")
	expose := programs.Start(t, "tunnox", nil, "expose", fmt.Sprint(service), "--encryption", "e2e", "--state", states[1])
	code := expose.Says(`tunnox get (\S+)`, 20*time.Second)[1]
	programs.Start(t, "tunnox", nil, "get", code, "--listen", fmt.Sprint(get), "--state", states[0])
	waitAnswer(t, get, "service:get")
	answer, err := s.API.Call(http.MethodGet, "/api/v1/mappings?limit=100", nil)
	if err != nil || strings.Count(string(answer.Body), `"encryption":"e2e"`) != 3 {
		t.Errorf("the mappings are %s, %v", answer.Body, err)
	}
}

// Agents that have known each other need no control plane for an encrypted connection, also
// after they were restarted.
func TestKnownKeysNeedNoControlPlane(t *testing.T) {
	t.Parallel()
	cluster := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
	s := cluster.Server()
	p := &pair{API: s.API, server: s, user: s.API.CreateUser(t, "ann")}
	p.source, p.target = s.API.CreateClient(t, p.user.ID, "source"), s.API.CreateClient(t, p.user.ID, "target")
	here, there := t.TempDir(), t.TempDir()
	p.targetAgent, p.sourceAgent = p.keyed(t, p.target, there), p.keyed(t, p.source, here)
	service := programs.Listen(t, answering("service")).Port
	local := programs.FreePort(t)
	s.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
		"target_client_id": p.target.ID, "protocol": "tcp", "local_port": local, "target_host": "127.0.0.1", "target_port": service, "encryption": "e2e"}, nil)
	waitAnswer(t, local, "service:hello")
	for _, running := range []*programs.Process{s.Process, p.sourceAgent, p.targetAgent} {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	}
	for _, end := range []struct {
		programs.Client
		state string
	}{{p.target, there}, {p.source, here}} {
		s.Agent(t, []string{"TUNNOX_AUTH_CODE=" + end.AuthCode}, "--client-id", fmt.Sprint(end.ID), "--state", end.state)
	}
	programs.Eventually(t, 30*time.Second, func() error { return ask(local, "service:alone") })
}

// announced compares how often clients have announced keys.
func announced(t *testing.T, p *pair, want map[int64]int) {
	t.Helper()
	for client, n := range want {
		answer, err := p.API.Call(http.MethodGet, path("/clients/%d/history?limit=500", client), nil)
		if err != nil || answer.Status != http.StatusOK {
			t.Fatalf("%v: %s", err, answer.Body)
		}
		if got := strings.Count(string(answer.Body), `"client_key_announced"`); got != n {
			t.Errorf("client %d has announced %d keys, want %d: %s", client, got, n, answer.Body)
		}
	}
}

// tunnox runs a command and gives what it printed.
func tunnox(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs.Build(t), "tunnox"), args...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("exit code %d", exit.ExitCode())
	}
	return strings.TrimSpace(string(out)), err
}
