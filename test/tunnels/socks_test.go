package tunnels

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// fetch gets a page through a SOCKS proxy, which resolves the name.
func fetch(proxy, login, page string) (string, error) {
	args := []string{"-sS", "--max-time", "15", "--noproxy", "", "--socks5-hostname", proxy}
	if login != "" {
		args = append(args, "--proxy-user", login)
	}
	out, err := exec.Command("curl", append(args, page)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("curl: %w: %s", err, out)
	}
	return string(out), err
}

// TestSocks: one command gives a SOCKS proxy that leads into another machine's network,
// at the usual port or another, with a password that is in no command line, and at the
// same address again when the program is killed.
func TestSocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop, centre := w.machine("laptop"), w.reachable("datacentre")
	centre.start("agent")
	page := "http://localhost:" + webService(t, "web") + "/"
	through := func(proxy, login string) {
		t.Helper()
		programs.Eventually(t, limit, func() error {
			got, err := fetch(proxy, login, page)
			if err == nil && got != "web" {
				err = fmt.Errorf("the page is %q", got)
			}
			return err
		})
	}
	open := laptop.tunnel("socks", "datacentre")
	host, _, err := net.SplitHostPort(open.ready.Listen)
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("it listens on %q", open.ready.Listen)
	}
	through(open.ready.Listen, "")
	if _, err := fetch(open.ready.Listen, "", "http://169.254.169.254/"); err == nil {
		t.Error("metadata can be asked for")
	}
	open.Kill()
	again := laptop.tunnel("socks", "datacentre")
	if again.ready.Listen != open.ready.Listen {
		t.Errorf("it listens on %s now, and did on %s", again.ready.Listen, open.ready.Listen)
	}
	through(again.ready.Listen, "")

	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("correct horse")
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	guarded := laptop.tunnel("socks", "datacentre", "--listen", at, "--username", "ann", "--password-file", file)
	if guarded.ready.Listen != at {
		t.Errorf("it listens on %s, want %s", guarded.ready.Listen, at)
	}
	through(at, "ann:correct horse")
	for _, login := range []string{"", "ann:wrong", "bob:correct horse"} {
		if _, err := fetch(at, login, page); err == nil {
			t.Errorf("%q is let in", login)
		}
	}
	guarded.Kill()
	write("battery staple")
	guarded = laptop.tunnel("socks", "datacentre", "--listen", at, "--username", "ann", "--password-file", file)
	through(at, "ann:battery staple")
	if _, err := fetch(at, "ann:correct horse", page); err == nil {
		t.Error("the password of the program before is good")
	}
	for _, answer := range []string{w.events("mapping_created")[0], string(w.API.Do(t, http.MethodGet, "/api/v1/mappings", nil, nil).Body)} {
		if strings.Contains(answer, "staple") || strings.Contains(answer, url.QueryEscape("battery staple")) {
			t.Errorf("the API shows the password: %s", answer)
		}
	}

	if said := laptop.refused(4, "socks", "datacentre", "--listen", at); !strings.Contains(said, "listens on "+at) && !strings.Contains(said, at) {
		t.Errorf("a port that is taken: %s", said)
	}
	laptop.refused(3, "socks", "nobody")
	laptop.refused(2, "socks", "datacentre:80")
	laptop.refused(2, "socks", "datacentre", "--username", "ann")
	for _, tunnel := range []*tunnel{guarded, again} {
		tunnel.end(t)
	}
	w.left(0)
	silent(t, at)
}
