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

// webService is a web server that says its name.
func webService(t testing.TB, name string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestHTTP: one command gives a web service a public URL, which stays when the program
// or the server is killed.
func TestHTTP(t *testing.T) {
	t.Parallel()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := newWorld(t, "--http", at, "--base-domain", "t.example.org")
	laptop := w.machine("laptop")
	began := time.Now()
	port := webService(t, "web")
	web := laptop.tunnel("http", port)
	u, err := url.Parse(web.ready.URL)
	if err != nil || !strings.HasSuffix(u.Hostname(), ".t.example.org") {
		t.Fatalf("the URL is %q, %v", web.ready.URL, err)
	}
	get := func(host string) error {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequest(http.MethodGet, "http://"+at+"/", http.NoBody)
		if err != nil {
			return err
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "web") {
			err = fmt.Errorf("%s answers %s %q", host, resp.Status, body)
		}
		return err
	}
	answered := func() {
		t.Helper()
		programs.Eventually(t, limit, func() error { return get(u.Host) })
	}
	answered()
	t.Logf("from the command to the first answer: %v", time.Since(began).Round(time.Millisecond))

	web.Kill()
	web = laptop.tunnel("http", port)
	if web.ready.URL != u.String() {
		t.Errorf("the URL is %s now, and was %s", web.ready.URL, u)
	}
	answered()
	w.Kill()
	w.Restart(t)
	answered()

	named := laptop.tunnel("http", port, "--host", "Shop")
	if !strings.Contains(named.ready.URL, "://shop.t.example.org") {
		t.Errorf("the URL is %s", named.ready.URL)
	}
	if said := laptop.refused(4, "http", "8080", "--host", "shop"); !strings.Contains(said, "of the public host shop is the mapping") {
		t.Errorf("a name that is taken: %s", said)
	}
	named.Kill()
	named = laptop.tunnel("http", port, "--host", "shop", "--name", "another") // one's own name, for another tunnel
	if !strings.Contains(named.ready.URL, "://shop.t.example.org") {
		t.Errorf("the URL is %s after a kill", named.ready.URL)
	}
	named.end(t)
	web.end(t)
	w.left(0)
}

// TestHTTPWithRules: who may come in, and what the service sees, is said on the command
// line; the URL stays when the program is started again with another password, and the
// old one lets in nobody.
func TestHTTPWithRules(t *testing.T) {
	t.Parallel()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := newWorld(t, "--http", at, "--base-domain", "t.example.org")
	laptop := w.machine("laptop")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		fmt.Fprintf(w, "%s %s %q", in.Host, in.URL, in.Header["X-From"])
	}))
	t.Cleanup(service.Close)
	_, port, _ := net.SplitHostPort(service.Listener.Addr().String())
	var host string
	get := func(path, user, password string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, "http://"+at+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	answers := func(path, user, password string, status int, text string) {
		t.Helper()
		programs.Eventually(t, limit, func() error {
			if got, body := get(path, user, password); got != status || !strings.Contains(body, text) {
				return fmt.Errorf("%s as %s answers %d %q, want %d %q", path, user, got, body, status, text)
			}
			return nil
		})
	}
	secrets := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(secrets, []byte("# ours\nbob:battery: staple\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := []string{"--basic-file", secrets, "--allow", "127.0.0.0/8", "--deny", "127.0.0.66", "--host-header", "localhost", "--strip-prefix", "/app", "--request-header", "X-From: a, b"}
	web := laptop.tunnel(append([]string{"http", port, "--basic", "ann:correct horse"}, rules...)...)
	u, err := url.Parse(web.ready.URL)
	if err != nil {
		t.Fatal(err)
	}
	host = u.Host
	answers("/", "", "", 401, "")
	answers("/app/x", "ann", "correct horse", 200, `localhost /x ["a, b"]`)
	answers("/", "bob", "battery: staple", 200, "localhost / ")

	// The same again, and then with another password.
	web.Kill()
	web = laptop.tunnel(append([]string{"http", port, "--basic", "ann:correct horse"}, rules...)...)
	if web.ready.URL != u.String() {
		t.Errorf("the URL is %s now, and was %s", web.ready.URL, u)
	}
	answers("/", "ann", "correct horse", 200, "")
	web.Kill()
	web = laptop.tunnel(append([]string{"http", port, "--basic", "ann:another"}, rules...)...)
	if web.ready.URL != u.String() {
		t.Errorf("the URL is %s now, and was %s", web.ready.URL, u)
	}
	answers("/", "ann", "another", 200, "")
	answers("/", "ann", "correct horse", 401, "")

	// What had rules is not taken over by who wants none.
	web.Kill()
	open := laptop.tunnel("http", port, "--host", "open")
	host = "open.t.example.org"
	answers("/", "", "", 200, "")
	open.end(t)

	for _, c := range []struct {
		want string
		args []string
	}{
		{"want USER:PASSWORD", []string{"--basic", "ann"}},
		{"is no header", []string{"--request-header", "X"}},
		{"is no network", []string{"--allow", "300.0.0.1"}},
		{"belongs to the connection", []string{"--response-header", "Connection: close"}},
	} {
		if said := laptop.refused(2, append([]string{"http", port}, c.args...)...); !strings.Contains(said, c.want) {
			t.Errorf("%v: %s", c.args, said)
		}
	}
	if said := laptop.refused(2, "http", port, "--basic", ":secret-word"); strings.Contains(said, "secret-word") {
		t.Errorf("what may be a password is repeated: %s", said)
	}
}
