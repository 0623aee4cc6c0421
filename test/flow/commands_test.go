package flow

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestAStolenCredentialOpensNoOtherMachine: whoever takes an agent's credential from its
// machine cannot lead connections to the other machines of its user, until the user lets
// agents do so; and what an agent's owner does not let it dial stays closed even then.
func TestAStolenCredentialOpensNoOtherMachine(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		server := serve()
		api := server.API
		user := api.CreateUser(t, "ann")
		laptop, nas := api.CreateClient(t, user.ID, "laptop"), api.CreateClient(t, user.ID, "nas")
		secret := programs.Listen(t, answering("secret")).Port
		open := programs.Listen(t, answering("open")).Port
		server.Join(t, api, nas, "--only", fmt.Sprintf("127.0.0.1:%d", open))

		stolen := filepath.Join(t.TempDir(), "auth-code")
		if err := os.WriteFile(stolen, []byte(laptop.AuthCode+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		state := t.TempDir()
		programs.Start(t, "tunnox", nil, "agent", "--server", server.Agents, "--pin", server.Pin, "--sessions", "1", "--state", state,
			"--client-id", fmt.Sprint(laptop.ID), "--auth-code-file", stolen)
		api.WaitOnline(t, laptop.ID)
		command := func(listen int, service string) *programs.Process {
			return programs.Start(t, "tunnox", nil, "agent", "mapping", "create", "--state", state,
				"--listen", fmt.Sprint(listen), "--target", "nas", "--service", service)
		}
		at := programs.FreePort(t)
		for _, service := range []string{fmt.Sprintf("127.0.0.1:%d", secret), fmt.Sprintf("127.0.0.1:%d", open)} {
			thief := command(at, service)
			if status := thief.Fails(20 * time.Second); status != 3 || !strings.Contains(thief.Said(1<<10), "commands_refused") {
				t.Errorf("the thief's command ended with %d: %s", status, thief.Said(1<<10))
			}
		}
		if answer, err := api.Call(http.MethodGet, path("/mappings"), nil); err != nil || strings.Contains(string(answer.Body), "mapping_id") {
			t.Errorf("there are mappings now: %s, %v", answer.Body, err)
		}

		// Ann lets her agents reach the machine. It dials what its owner lets it, and no more.
		_, hers := withPassword(t, api, user.ID)
		hers.Do(t, http.MethodPut, path("/clients/%d", nas.ID), map[string]any{"commands": "all"}, nil)
		if err := command(at, fmt.Sprintf("127.0.0.1:%d", open)).Wait(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		waitAnswer(t, at, "open:hello")
		other := programs.FreePort(t)
		if err := command(other, fmt.Sprintf("127.0.0.1:%d", secret)).Wait(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		waitOpen(t, other)
		if err := ask(other, "secret:hello"); err == nil {
			t.Error("a service that the agent's owner does not let it dial was reached")
		}

		// She takes it back, and the next command is refused.
		hers.Do(t, http.MethodPut, path("/clients/%d", nas.ID), map[string]any{"commands": "own"}, nil)
		if status := command(programs.FreePort(t), fmt.Sprintf("127.0.0.1:%d", open)).Fails(20 * time.Second); status != 3 {
			t.Errorf("after own the command ended with %d", status)
		}
	})
}
