package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// The API is at a host of --https: for everybody's programs, under its own limits, and
// out of reach of mappings.
func TestAPIAtAHost(t *testing.T) {
	const host = "api." + baseDomain
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	roots := writeCertificate(t, certificate, key)
	ports := programs.FreePorts(t, 2)
	secure, clear := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	s := programs.Serve(t, "--http", clear, "--https", secure, "--certificate", certificate, "--certificate-key", key,
		"--base-domain", baseDomain, "--api-host", host, "--rate-limit", "1", "--rate-burst", "300")
	w := newWorld(t, s.API, s, s, clear)
	base := fmt.Sprintf("https://%s:%d", host, ports[0])

	for _, http2 := range []bool{false, true} {
		client := secureVisitors(t, secure, roots, http2)
		for path, want := range map[string]int{"/": 302, "/docs": 200, "/health": 200, "/api/v1/users": 401, "/nothing": 404} {
			if status, _ := fetch(t, client, base+path); status != want {
				t.Errorf("HTTP/2 %v: %s answers %d, want %d", http2, path, status, want)
			}
		}
		if status, text := fetch(t, client, base+"/api/v1/users", "Authorization", "Bearer "+s.API.Key); status != 200 || !strings.Contains(text, `"ann"`) {
			t.Errorf("HTTP/2 %v: the key gives %d %.200s", http2, status, text)
		}
	}

	w.visitors.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if status, text := fetch(t, w.visitors, "http://"+host+"/docs?x"); status != 308 || !strings.Contains(text, base+"/docs?x") {
		t.Errorf("without TLS the docs answer %d %.200s, want a redirect", status, text)
	}
	if status, text := fetch(t, w.visitors, "http://"+host+"/api/v1/users", "Authorization", "Bearer "+s.API.Key); status != 403 || !strings.Contains(text, "https only") {
		t.Errorf("without TLS the key gives %d %.200s", status, text)
	}

	shop := w.publish(web(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "shop") }), map[string]any{"public_host": "shop"})
	for _, protocol := range []string{"http", "tls"} {
		for _, name := range []string{"api", host} {
			s.API.Refused(t, http.StatusConflict, "host_taken", http.MethodPost, "/api/v1/mappings", w.wanted(80, map[string]any{"protocol": protocol, "public_host": name}))
		}
	}
	if status, text := fetch(t, secureVisitors(t, secure, roots, true), shop.URL); status != 200 || text != "shop" {
		t.Errorf("a mapping answers %d %q", status, text)
	}

	password := "correct horse battery"
	s.API.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d", w.user.ID), map[string]any{"password": password}, nil)
	command := terminal(t, secure)
	if out, err := command(password, "login", "--api", base, "--username", "ann"); err == nil || !strings.Contains(out, "--api-ca FILE") {
		t.Errorf("a certificate that nothing vouches for: %v, %s", err, out)
	}
	if out, err := command(password, "login", "--api", base, "--api-ca", certificate, "--username", "ann"); err != nil {
		t.Fatalf("login: %v, %s", err, out)
	}
	if out, err := command("", "whoami"); err != nil || !strings.Contains(out, strconv.FormatInt(w.user.ID, 10)) {
		t.Errorf("whoami with what the login has kept: %v, %s", err, out)
	}

	strangersAreCounted(t, secure, base)

	// A live stream does not hold up the end.
	req, err := http.NewRequest(http.MethodGet, base+"/api/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.API.Key)
	res, err := secureVisitors(t, secure, roots, false).Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("the live stream: %v, %v", res, err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
}

// strangersAreCounted holds that the limit of an address counts the visitor's own, which
// no header changes.
func strangersAreCounted(t *testing.T, secure, base string) {
	from := func(address string) *http.Client {
		client := secureVisitors(t, secure, nil, false)
		transport := client.Transport.(*http.Transport)
		transport.TLSClientConfig.InsecureSkipVerify = true
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
			return d.DialContext(ctx, "tcp", secure)
		}
		return client
	}
	client, status := from("127.0.0.77"), 0
	for i := 0; i < 5000 && status != http.StatusTooManyRequests; i++ {
		status, _ = fetch(t, client, base+"/api/v1/users", "X-Forwarded-For", "192.0.2."+strconv.Itoa(i%250), "Forwarded", "for=192.0.2."+strconv.Itoa(i%250))
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("a stranger who names other addresses is answered %d, want 429", status)
	}
	if status, _ := fetch(t, from("127.0.0.78"), base+"/api/v1/users"); status != http.StatusUnauthorized {
		t.Errorf("another stranger is answered %d, want 401", status)
	}
}

// fetch gives status and body; of a redirect, the place as well.
func fetch(t *testing.T, client *http.Client, url string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Location") + string(body)
}

// terminal runs tunnox for an account of its own, whose every name leads to one address.
func terminal(t *testing.T, address string) func(stdin string, args ...string) (string, error) {
	ways := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		server, err := net.Dial("tcp", address)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		defer server.Close()
		visitor, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer visitor.Close()
		_, _ = io.WriteString(visitor, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(server, visitor)
			_ = server.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(visitor, server)
	}))
	t.Cleanup(ways.Close)
	home := t.TempDir()
	env := append(os.Environ(), "HOME="+home, "XDG_STATE_HOME="+home, "XDG_CONFIG_HOME="+home, "HTTPS_PROXY="+ways.URL, "NO_PROXY=")
	program := filepath.Join(programs.Build(t), "tunnox")
	return func(stdin string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
