package tunnels

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestSite: one command serves a directory, and another a unix socket. Whoever starts one
// allows by that what it names, and nothing else.
func TestSite(t *testing.T) {
	t.Parallel()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := newWorld(t, "--http", at, "--base-domain", "t.example.org")
	laptop, desk := w.reachable("laptop"), w.machine("desk")
	dir := filepath.Join(t.TempDir(), "site")
	if err := os.MkdirAll(filepath.Join(dir, "list"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"index.html": "home", "list/a.txt": "alpha", ".env": "SECRET"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	get := func(from, path string, status int, want string) {
		t.Helper()
		u, err := url.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		programs.Eventually(t, limit, func() error {
			req, err := http.NewRequest(http.MethodGet, "http://"+at+path, http.NoBody)
			if err != nil {
				return err
			}
			req.Host = u.Host
			client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != status || want != "" && string(body) != want) {
				err = fmt.Errorf("%s%s answers %s %q", u.Host, path, resp.Status, body)
			}
			return err
		})
	}
	site := laptop.tunnel("http", dir)
	get(site.ready.URL, "/", 200, "home")
	get(site.ready.URL, "/list/a.txt", 200, "alpha")
	get(site.ready.URL, "/list/", 404, "")
	get(site.ready.URL, "/.env", 404, "")
	status := programs.Start(t, "tunnox", nil, "status", "--state", laptop.state)
	if err := status.Wait(limit); err != nil || !strings.Contains(status.Said(1<<14), "-> file:"+dir) {
		t.Errorf("the status (%v) does not name the directory: %s", err, status.Said(1<<14))
	}
	listed := laptop.tunnel("http", "file:"+dir, "--listing", "--dot-files")
	get(listed.ready.URL, "/list/", 200, "")
	get(listed.ready.URL, "/.env", 200, "SECRET")
	listed.end(t)

	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secure") }))
	t.Cleanup(secure.Close)
	tls := laptop.tunnel("http", secure.URL)
	get(tls.ready.URL, "/", 200, "secure")
	tls.end(t)

	sock := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "socket:")
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	public := laptop.tunnel("tcp", "unix:"+sock)
	answers(t, public.ready.Address, "socket")
	shared := laptop.tunnel("expose", "unix:"+sock)
	got := desk.tunnel("get", shared.ready.Code)
	answers(t, got.ready.Listen, "socket")

	// Another machine of the same user has no way to what nobody named there.
	local := strconv.Itoa(programs.FreePort(t))
	other := desk.tunnel("forward", local, "laptop:unix:"+sock+"x")
	if err := ask("127.0.0.1:"+local, "socket"); err == nil {
		t.Error("a socket that nobody named is reached")
	}
	other.end(t)

	file := filepath.Join(filepath.Dir(dir), "tunnox.yaml")
	if err := os.WriteFile(file, []byte("tunnels:\n  pages:\n    http: ./site\n    listing: true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := laptop.start("up", "--file", file, "--json")
	get(readyOf(t, up).URL, "/list/", 200, "")

	for _, wrong := range [][]string{{"http", dir + "/index.html"}, {"http", "./nothing-here"}, {"http", "3000", "--listing"}, {"tcp", "file:" + dir}, {"tcp", "unix:"}, {"udp", "unix:" + sock}, {"http", "https://127.0.0.1:1", "--inspect"}} {
		laptop.refused(2, wrong...)
	}
	for _, p := range []*tunnel{got, shared, public, site} {
		p.end(t)
	}
}
