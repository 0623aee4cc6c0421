package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const planned = `{"command":"delete_client","events":[{"stream":"client-6","version":4,"owner":1,"name":"client_deleted","data":{"x":"a\u001bb"}}],` +
	`"ends":{"clients":[6],"mappings":[7,8],"sessions":1,"streams":null}}`

func TestDryRunsShowWhatWouldHappen(t *testing.T) {
	api := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("dry_run") == "true" {
			w.Header().Set("Content-Type", planType)
		}
		fmt.Fprint(w, planned)
	}
	code, out, stderr := tunnox(t, api, "client", "delete", "6", "7", "--dry-run")
	if code != exitOK || strings.Contains(out, "deleted client") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	for _, want := range []string{"delete_client would write:", "client-6", "client_deleted", "would end 1 session of the clients [6]",
		"would end an unknown number of open connections of the mappings [7 8]", "nothing was changed"} {
		if strings.Count(out, want) != 2 { // one for each client
			t.Errorf("%q does not say %q twice", out, want)
		}
	}
	if strings.ContainsAny(out, "\x1b") {
		t.Errorf("the cursor was moved: %q", out)
	}
	if _, out, _ := tunnox(t, api, "client", "disable", "6", "--dry-run", "--json"); !strings.Contains(out, `"ends": {`) {
		t.Errorf("as JSON it is %s", out)
	}
	file := filepath.Join(t.TempDir(), "code")
	if code, _, stderr := tunnox(t, api, "client", "rotate", "6", "--dry-run", "--auth-code-file", file); code != exitOK {
		t.Errorf("rotate: exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a dry run left a file for the auth code it did not make")
	}
}

// TestDryRunThatWasNone: an answer that is none to a dry run may be the one to the
// command, which must not look like success.
func TestDryRunThatWasNone(t *testing.T) {
	code, _, stderr := tunnox(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }, "client", "delete", "6", "--dry-run")
	if code != exitFailure || !strings.Contains(stderr, "it may have executed the command") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestSecretThatIsNotGivenAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "code")
	code, _, stderr := tunnox(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"client_id":6}`) },
		"client", "create", "--name", "x", "--auth-code-file", file, "--idempotency-key", "k")
	if code != exitFailure || !strings.Contains(stderr, "make another one with: tunnox client rotate 6") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file for the auth code was left, empty")
	}
}
