package flow

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// curl fetches a page through a SOCKS listener with the program that people use, and
// gives what it prints and its exit code.
func curl(t testing.TB, listener int, login, url string) (string, int) {
	t.Helper()
	args := []string{"-sS", "--max-time", "20", "--noproxy", "", "--socks5-hostname", fmt.Sprintf("127.0.0.1:%d", listener)}
	if login != "" {
		args = append(args, "--proxy-user", login)
	}
	out, err := exec.Command("curl", append(args, url)...).CombinedOutput()
	code := 0
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out), code
}

// curl reaches pages through a socks5 mapping by name, with a user name and password
// where the mapping asks for them, and is told in its own words what it may not.
func TestSOCKS(t *testing.T) {
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }))
		t.Cleanup(page.Close)
		url := strings.Replace(page.URL, "127.0.0.1", "localhost", 1) + "/x"
		local := programs.FreePort(t)
		var m struct {
			ID    int64 `json:"mapping_id"`
			Socks *struct {
				Username string `json:"username"`
				Password string `json:"password"`
			} `json:"socks"`
		}
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "socks5", "local_port": local}, &m)
		programs.Eventually(t, 20*time.Second, func() error {
			if out, code := curl(t, local, "", url); out != "the page" || code != 0 {
				return fmt.Errorf("curl prints %q and ends with %d", out, code)
			}
			return nil
		})
		if out, code := curl(t, local, "", "http://169.254.169.254/latest/meta-data/"); code != 97 || !strings.Contains(out, "(2)") {
			t.Errorf("asked for metadata, curl prints %q and ends with %d, want that the rules do not allow it (2)", out, code)
		}
		if out, code := curl(t, local, "", fmt.Sprintf("http://127.0.0.1:%d/", programs.FreePort(t))); code != 97 || !strings.Contains(out, "(5)") {
			t.Errorf("asked for a closed port, curl prints %q and ends with %d, want a refused connection (5)", out, code)
		}

		p.API.Do(t, http.MethodPut, path("/mappings/%d", m.ID), map[string]any{"socks": map[string]any{"username": "ann", "password": "correct horse"}}, &m)
		if m.Socks == nil || m.Socks.Username != "ann" || m.Socks.Password != "" {
			t.Errorf("the API shows %+v", m.Socks)
		}
		programs.Eventually(t, 20*time.Second, func() error { // the change is on its way
			if out, code := curl(t, local, "", url); code != 97 {
				return fmt.Errorf("without a password curl prints %q and ends with %d", out, code)
			}
			return nil
		})
		for login, want := range map[string]int{"ann:correct horse": 0, "ann:wrong": 97, "bob:correct horse": 97} {
			if out, code := curl(t, local, login, url); code != want || want == 0 && out != "the page" {
				t.Errorf("as %s curl prints %q and ends with %d, want %d", login, out, code, want)
			}
		}
		if text := string(p.API.Do(t, http.MethodGet, path("/mappings/%d/history", m.ID), nil, nil).Body); strings.Contains(text, "correct horse") || strings.Contains(text, "pbkdf2") {
			t.Errorf("the history shows a password or its hash: %s", text)
		}
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		p.API.Do(t, http.MethodDelete, path("/mappings/%d", m.ID), nil, nil)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("a client of a deleted mapping reads %d bytes", n)
		}
	})
}
