package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/wire"
)

// keyed is a server that notes the keys which come to it.
func keyed(t *testing.T) (url string, keys func() []string) {
	t.Helper()
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		fmt.Fprint(w, `{"items":[],"next":null,"actor":"key:admin"}`)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string { all := got; got = nil; return all }
}

// joinedAs makes a context as a join does.
func joinedAs(t *testing.T, dir, server, api, login string) {
	t.Helper()
	credential, err := wire.NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	kept := &agent.State{File: filepath.Join(dir, "client.json"), Joined: &agent.Joined{Servers: []string{server}, API: api}}
	if err := kept.Save(agent.Identity{ClientID: 600000000, Credential: credential}, server); err != nil {
		t.Fatal(err)
	}
	if login == "" {
		return
	}
	l := logins{filepath.Join(dir, "logins.json")}
	far := time.Now().Add(time.Hour)
	if err := l.change(t.Context(), func(all map[string]keptLogin) error {
		all[api] = keptLogin{Username: "ann", AccessToken: login, AccessEnds: far, RefreshToken: "r", RefreshEnds: far}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Two servers, and every way to say which one is meant and with which key: a key comes
// to the server that it is of, or nowhere.
func TestAKeyGoesToItsOwnServerOnly(t *testing.T) {
	home := t.TempDir()
	base := filepath.Join(home, ".local", "state", "tunnox")
	work, workKeys := keyed(t)
	other, otherKeys := keyed(t)
	joinedAs(t, base, "work.example.org:8080", work, "work-login")
	joinedAs(t, filepath.Join(base, "contexts", "other"), "other.example.org:8080", other, "other-login")
	joinedAs(t, filepath.Join(base, "contexts", "silent"), "silent.example.org:8080", "", "")
	keyFile := filepath.Join(home, "key")
	if err := os.WriteFile(keyFile, []byte("file-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args, env   string
		work, other string // the key that comes there; "" = no request
		says        string
	}{
		{"", "", "work-login", "", ""},
		{"--context other", "", "", "other-login", ""},
		{"", "TUNNOX_CONTEXT=other", "", "other-login", ""},
		{"--context work.example.org", "TUNNOX_CONTEXT=other", "work-login", "", ""},
		{"--context silent", "", "", "", "tunnox use silent --api URL"},
		{"--api " + other, "", "", "-", ""}, // the login of that one is of another context

		{"", "TUNNOX_API_KEY=k", "", "", "TUNNOX_API_KEY does not say which server"},
		{"--api-key-file " + keyFile, "", "", "", "--api-key-file does not say which server"},
		{"--api-key-file " + keyFile + " --context other", "", "", "file-key", ""},
		{"--api-key-file " + keyFile + " --api " + other, "", "", "file-key", ""},
		{"", "TUNNOX_API=" + other + " TUNNOX_API_KEY=k", "", "k", ""},
		{"--api " + work, "TUNNOX_API=" + other + " TUNNOX_API_KEY=k", "work-login", "", ""},
		{"--api " + work, "TUNNOX_API_KEY=k", "k", "", ""},
		{"--context work.example.org", "TUNNOX_API=" + other + " TUNNOX_API_KEY=k", "work-login", "", ""},
		{"--context other", "TUNNOX_API=" + other + " TUNNOX_API_KEY=k", "", "k", ""},
		{"", "TUNNOX_CONTEXT=other TUNNOX_API_KEY=k", "", "k", ""},
	} {
		var out, errs bytes.Buffer
		s := surroundings{environ: append([]string{"HOME=" + home}, strings.Fields(tt.env)...), stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		exitCode(&errs, run(t.Context(), append(strings.Fields("user list --timeout 5s"), strings.Fields(tt.args)...), s))
		for _, got := range []struct {
			server string
			keys   []string
			want   string
		}{{"work", workKeys(), tt.work}, {"other", otherKeys(), tt.other}} {
			want := []string{got.want}
			switch got.want {
			case "":
				want = nil
			case "-":
				want = []string{""}
			}
			if fmt.Sprint(got.keys) != fmt.Sprint(want) {
				t.Errorf("tunnox user list %s with %q: %s got %q, want %q\n%s", tt.args, tt.env, got.server, got.keys, want, &errs)
			}
		}
		if !strings.Contains(errs.String(), tt.says) {
			t.Errorf("tunnox user list %s with %q: %q does not say %q", tt.args, tt.env, &errs, tt.says)
		}
	}
}

func TestNamesOfServersAreNamesOfContexts(t *testing.T) {
	for server, want := range map[string]string{"tunnox.example.org:8080": "tunnox.example.org", "[2001:db8::1]:8080": "2001-db8--1", "wss://Front.Example.org:443": "front.example.org",
		"https://api.example.org": "api.example.org", "192.0.2.7": "192.0.2.7", "..:1": "default", "../../x:1": "x", strings.Repeat("a", 200) + ":1": strings.Repeat("a", 63)} {
		if got := nameOfServer(server); got != want || !contextName.MatchString(got) {
			t.Errorf("%s: %q, want %q", server, got, want)
		}
	}
}
