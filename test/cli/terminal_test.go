package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestWhatEndsThingsAsksFirst: a person at a terminal sees what a command would end and
// is asked; return alone means no.
func TestWhatEndsThingsAsksFirst(t *testing.T) {
	s := programs.StartServer(t, "serve")
	user := s.API.CreateUser(t, "ann")
	c := s.API.CreateClient(t, user.ID, "laptop")
	env := []string{"TUNNOX_API=" + s.API.URL, "TUNNOX_API_KEY=" + s.API.Key}
	talk := func(typed string, args ...string) (string, int) {
		t.Helper()
		var answers []programs.Reply
		if typed != "" {
			answers = []programs.Reply{{To: "Go on? [y/N] ", Type: typed}}
		}
		shown, err := programs.Talk(t, t.TempDir(), env, answers, "tunnox", args...)
		exit, ok := errors.AsType[*exec.ExitError](err)
		if err != nil && !ok {
			t.Fatalf("%v: %v\n%s", args, err, shown)
		}
		if ok {
			return shown, exit.ExitCode()
		}
		return shown, 0
	}
	there := func(path string) bool {
		t.Helper()
		answer, err := s.API.Call(http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status == http.StatusOK
	}
	path := fmt.Sprintf("/api/v1/clients/%d", c.ID)
	id := fmt.Sprint(c.ID)
	for _, no := range []string{"\n", "n\n", "\x04"} {
		shown, code := talk(no, "client", "delete", id)
		if code != 1 || !strings.Contains(shown, "client_deleted") || !strings.Contains(shown, "nothing was changed") {
			t.Errorf("after %q it ended with %d:\n%s", no, code, shown)
		}
	}
	if !there(path) {
		t.Fatal("the client was deleted without a yes")
	}
	var log struct{ Items []struct{ Position int64 } }
	s.API.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/audit?type=client_created&subject=client-%d", c.ID), nil, &log)
	position := fmt.Sprint(log.Items[0].Position)
	if shown, code := talk("\n", "events", "revert", position); code != 1 || !strings.Contains(shown, "client_deleted") || !there(path) {
		t.Errorf("taking a creation back ended with %d:\n%s", code, shown)
	}
	if shown, code := talk("y\n", "client", "delete", id); code != 0 || !strings.Contains(shown, "deleted client "+id) || there(path) {
		t.Errorf("after yes it ended with %d:\n%s", code, shown)
	}
	if shown, code := talk("", "user", "delete", "--yes", fmt.Sprint(user.ID)); code != 0 || strings.Contains(shown, "Go on") {
		t.Errorf("with --yes it ended with %d:\n%s", code, shown)
	}
}

// TestATerminalIsForPeople: at a terminal times are relative and ids are grey, unless
// NO_COLOR is set; a pipe gets plain text.
func TestATerminalIsForPeople(t *testing.T) {
	s := programs.StartServer(t, "serve")
	s.API.CreateUser(t, "ann")
	env := []string{"TUNNOX_API=" + s.API.URL, "TUNNOX_API_KEY=" + s.API.Key, "TERM=xterm", "NO_COLOR="}
	shown, err := programs.Talk(t, t.TempDir(), env, nil, "tunnox", "events")
	if err != nil || !strings.Contains(shown, "ago") && !strings.Contains(shown, "now") || !strings.Contains(shown, "\x1b[1m") {
		t.Errorf("at a terminal: %v\n%q", err, shown)
	}
	for _, without := range []string{"NO_COLOR=1", "TERM=dumb"} {
		shown, err = programs.Talk(t, t.TempDir(), append(env, without), nil, "tunnox", "user", "list")
		if err != nil || strings.Contains(shown, "\x1b") || !strings.Contains(shown, "ann") {
			t.Errorf("with %s: %v\n%q", without, err, shown)
		}
	}
}

// TestAPasswordIsNotShown: tunnox login asks for name and password on a terminal, and
// stores the login for later commands.
func TestAPasswordIsNotShown(t *testing.T) {
	s := programs.StartServer(t, "serve")
	const password = "correct horse battery staple"
	s.API.Do(t, http.MethodPost, "/api/v1/users", map[string]any{"username": "ann", "email": "ann@example.org", "password": password}, nil)
	home := t.TempDir()
	env := []string{"TUNNOX_API=" + s.API.URL}
	shown, err := programs.Talk(t, home, env, []programs.Reply{{To: "User name at http://", Type: "ann\n"}, {To: "Password at http://", Type: password + "\n"}}, "tunnox", "login")
	if err != nil || !strings.Contains(shown, "as ann") {
		t.Fatalf("login: %v\n%s", err, shown)
	}
	if strings.Contains(shown, "horse") {
		t.Errorf("the password stands on the terminal:\n%s", shown)
	}
	if shown, err = programs.Talk(t, home, env, nil, "tunnox", "whoami"); err != nil || !strings.Contains(shown, "user:") {
		t.Errorf("afterwards whoami says %v\n%s", err, shown)
	}
	// Interrupted at the question, it ends, and the person sees again what they type.
	shown, err = programs.Talk(t, home, env, []programs.Reply{{To: "User name at http://", Type: "ann\n"}, {To: "Password at http://", Type: "\x03"}}, "tunnox", "login")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("an interrupted login ended with %v\n%s", err, shown)
	}
}
