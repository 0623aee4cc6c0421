package tunnels

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
	named.end(t)
	web.end(t)
	w.left(0)
}
