package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// tunnox runs the program against a server that answers with handler.
func tunnox(t *testing.T, handler http.HandlerFunc, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	var out, errs bytes.Buffer
	s := surroundings{environ: []string{"TUNNOX_API=" + server.URL, "TUNNOX_API_KEY=the-key"},
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	code = exitCode(&errs, run(t.Context(), args, s))
	return code, out.String(), errs.String()
}

func TestAnswersBecomeExitCodes(t *testing.T) {
	problem := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		code   int
		says   []string
	}{
		"refused": {problem(422, `{"detail":"Not as it must be.","code":"invalid","errors":[{"location":"body.local_port","message":"must be 1 to 65535"}]}`),
			exitRefused, []string{"Not as it must be. [invalid]", "local_port: must be 1 to 65535"}},
		"no key":         {problem(401, `{"title":"Unauthorized","code":"unauthorized"}`), exitRefused, []string{"TUNNOX_API_KEY"}},
		"broken":         {problem(500, `{"detail":"Something went wrong here."}`), exitFailure, []string{"went wrong"}},
		"not our API":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hello", 404) }, exitRefused, []string{"is --api the address of the REST API?"}},
		"not JSON":       {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, exitFailure, []string{"answer"}},
		"breaks off":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, exitUnreachable, []string{"cannot reach"}},
		"takes too long": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, exitUnreachable, []string{"cannot reach"}},
	} {
		code, _, stderr := tunnox(t, tt.answer, "user", "show", "1", "--timeout", "200ms")
		if code != tt.code {
			t.Errorf("%s: exit code %d, want %d", name, code, tt.code)
		}
		for _, want := range tt.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q does not say %q", name, stderr, want)
			}
		}
	}
}

func TestListsFollowPagesAndJoinThem(t *testing.T) {
	pages := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-key" {
			t.Errorf("no key on %s", r.URL)
		}
		switch r.URL.Query().Get("after") {
		case "0":
			fmt.Fprint(w, `{"items":[{"user_id":1,"username":"ann"},{"user_id":2,"username":"bob"}],"next":2}`)
		case "2":
			fmt.Fprint(w, `{"items":[{"user_id":3,"username":"cid"}],"next":null}`)
		}
	}
	_, out, _ := tunnox(t, pages, "user", "list")
	for _, want := range []string{"USER", "ann", "bob", "cid"} {
		if !strings.Contains(out, want) {
			t.Errorf("table lacks %q:\n%s", want, out)
		}
	}
	_, out, _ = tunnox(t, pages, "user", "list", "--json")
	var all page
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Items) != 3 || all.Next != nil {
		t.Errorf("joined to %s, %v", out, err)
	}
	_, out, _ = tunnox(t, pages, "user", "list", "--limit", "2", "--json")
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Items) != 2 || all.Next == nil || *all.Next != 2 {
		t.Errorf("limited to %s, %v", out, err)
	}
}

func TestTextOfOthersCannotMoveTheCursor(t *testing.T) {
	_, out, _ := tunnox(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"client_id":12345678901234567,"client_title":"a\u001b[2Jb\nc","user_id":null,"last_seen":"2026-01-02T15:04:05Z","nested":{"x":[1]}}`)
	}, "client", "show", "1")
	if strings.ContainsAny(out, "\x1b") || strings.Count(out, "\n") != 5 {
		t.Errorf("got %q", out)
	}
	for _, want := range []string{"12345678901234567", "a?[2Jb?c", "user_id       -", "nested.x      1"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	want := "2026-01-02T15:04:05Z"
	if !strings.Contains(out, want) {
		t.Errorf("the time is not %s in\n%s", want, out)
	}
}

func TestWhatPeopleLookForComesFirst(t *testing.T) {
	for args, tt := range map[string]struct{ answer, want string }{
		"client show 1": {`{"created_at":"x","client_type":"managed","client_id":1,"status":"online","user_id":2,"new":3,"client_name":"a","name":"a"}`,
			"client_id name client_type user_id status created_at new"},
		"mapping show 1": {`{"target_port":4,"local_port":3,"status":"active","user_id":2,"mapping_id":1,"name":"a","updated_at":"x"}`,
			"mapping_id name user_id status local_port target_port updated_at"},
	} {
		_, out, _ := tunnox(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, tt.answer) }, strings.Fields(args)...)
		var names []string
		for line := range strings.Lines(out) {
			names = append(names, strings.Fields(line)[0])
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", args, got, tt.want)
		}
	}
}

func TestStateDirectoryFollowsXDG(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{[]string{"XDG_STATE_HOME=/x", "HOME=/home/ann"}, "/x/tunnox"},
		{[]string{"XDG_STATE_HOME=relative", "HOME=/home/ann"}, "/home/ann/.local/state/tunnox"},
		{[]string{"HOME=/home/ann"}, "/home/ann/.local/state/tunnox"},
		{nil, "tunnox-state"},
	} {
		if got := defaultStateDir(surroundings{environ: tt.environ}); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.environ, got, tt.want)
		}
	}
}

// A key that goes over a network without encryption is told, and nothing is said of one
// that stays on this machine.
func TestAKeyWithoutEncryptionIsTold(t *testing.T) {
	for base, told := range map[string]bool{"http://127.0.0.1:1": false, "http://localhost:1": false, "http://[::1]:1": false, "127.0.0.1:1": false,
		"http://192.0.2.1:1": true, "192.0.2.1:1": true, "http://localhost.example.org:1": true, "https://192.0.2.1:1": false} {
		var out, errs bytes.Buffer
		s := surroundings{environ: []string{"TUNNOX_API=" + base, "TUNNOX_API_KEY=the-key"}, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		exitCode(&errs, run(t.Context(), []string{"status", "--timeout", "1ms"}, s))
		if got := strings.Contains(errs.String(), "without encryption"); got != told || strings.Contains(errs.String(), "the-key") {
			t.Errorf("%s: %s", base, &errs)
		}
	}
}
