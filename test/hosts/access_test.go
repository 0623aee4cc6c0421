package hosts

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// raw sends bytes to who serves public hosts and reads one answer.
func (w *world) raw(request string) (status int, header http.Header, body string) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	_, _ = io.WriteString(conn, request)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatalf("%q: %v", request, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%q: %v", request, err)
	}
	return res.StatusCode, res.Header, string(text)
}

// asked makes a raw request to a host.
func asked(host, path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

const (
	annsBasic  = "Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=" // ann:correct horse
	wrongBasic = "Authorization: Basic YW5uOndyb25n"
)

// With a password at the tunnel the service sees nothing of it. The cookie that comes
// with the first answer lets the service's own Authorization through, which the service
// gets without the cookie (frp#1545); upgrades take it too. The log, the API and what is
// written to the disk have the password nowhere.
func TestBasicAccess(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		echo := web(t, func(out http.ResponseWriter, in *http.Request) {
			if in.Header.Get("Upgrade") != "" {
				conn, _, err := http.NewResponseController(out).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%q %q", in.Header["Authorization"], in.Header["Cookie"])
				return
			}
			http.SetCookie(out, &http.Cookie{Name: "app", Value: "1"})
			fmt.Fprintf(out, "%q %q", in.Header["Authorization"], in.Header["Cookie"])
		})
		m := w.publish(echo, map[string]any{"public_host": "shop", "access": map[string]any{"basic": []any{
			map[string]any{"username": "ann", "password": "correct horse"}, map[string]any{"username": "bob", "password": "battery"}}}})
		host := "shop." + baseDomain
		w.answers(m.URL, 401, "needs a username")

		status, header, _ := w.raw(asked(host, "/"))
		if status != 401 || header.Get("WWW-Authenticate") != `Basic realm="shop.t.example.org", charset="UTF-8"` || header.Get("Tunnox-Error") != "unauthorized" {
			t.Errorf("without a password: %d %v", status, header)
		}
		for _, no := range []string{wrongBasic, "Authorization: Bearer abc", "Authorization: Basic !", "Authorization: Basic ZXZlOmNvcnJlY3QgaG9yc2U=", "Cookie: tunnox-access-1=x",
			annsBasic + "\r\n" + annsBasic} {
			if status, _, body := w.raw(asked(host, "/", no)); status != 401 {
				t.Errorf("with %s: %d %s", no, status, body)
			}
		}
		status, header, body := w.raw(asked(host, "/", annsBasic, "Cookie: a=1; b=2"))
		if status != 200 || body != `[] ["a=1; b=2"]` {
			t.Errorf("with the password: %d %s", status, body)
		}
		var ours *http.Cookie
		for _, c := range (&http.Response{Header: header}).Cookies() {
			if strings.HasPrefix(c.Name, "tunnox-access-") {
				ours = c
			}
		}
		if ours == nil || !ours.HttpOnly || ours.Secure || ours.Domain != "" || ours.Path != "/" || len(header["Set-Cookie"]) != 2 {
			t.Fatalf("the answer sets %q", header["Set-Cookie"])
		}
		cookie := ours.Name + "=" + ours.Value
		for _, c := range []struct{ name, headers, want string }{
			{"the cookie", "Cookie: " + cookie, `[] []`},
			{"the cookie between others", "Cookie: a=1; " + cookie + "; b=\"2\"", `[] ["a=1; b=\"2\""]`},
			{"an Authorization of the service", "Cookie: " + cookie + "\r\nAuthorization: Bearer abc", `["Bearer abc"] []`},
			{"a password of the service", "Cookie: " + cookie + "\r\nAuthorization: Basic eDp5", `["Basic eDp5"] []`},
			{"a password of the service with our username", "Cookie: " + cookie + "\r\n" + wrongBasic, `["Basic YW5uOndyb25n"] []`},
			{"ours still sent", "Cookie: " + cookie + "\r\n" + annsBasic, `[] []`},
		} {
			if status, header, body := w.raw(asked(host, "/", c.headers)); status != 200 || body != c.want || len(header["Set-Cookie"]) != 1 {
				t.Errorf("with %s: %d %s, sets %q", c.name, status, body, header["Set-Cookie"])
			}
		}
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(limit))
		fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: %s\r\nAuthorization: Bearer abc\r\n\r\n", host, cookie)
		if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 101 ") || !strings.HasSuffix(string(text), "\r\n\r\n[\"Bearer abc\"] []") {
			t.Errorf("an upgrade with the cookie: %q, %v", text, err)
		}
		if status, _, _ := w.raw("GET /ws HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); status != 401 {
			t.Errorf("an upgrade without it: %d", status)
		}

		// It holds at this mapping alone, and through a restart of who serves it.
		w.publish(echo, map[string]any{"public_host": "other", "access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "correct horse"}}}})
		w.answers("http://other."+baseDomain+"/", 401, "")
		if status, _, _ := w.raw(asked("other."+baseDomain, "/", "Cookie: "+cookie)); status != 401 {
			t.Errorf("at another host the cookie lets in: %d", status)
		}
		w.entry.Kill()
		w.entry.Restart(t)
		programs.Eventually(t, limit, func() error {
			if status, _, body := w.raw(asked(host, "/", "Cookie: "+cookie)); status != 200 {
				return fmt.Errorf("after a restart: %d %s", status, body)
			}
			return nil
		})

		// A change keeps what it says nothing of; another password ends the cookie.
		path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
		shown, err := w.api.Call(http.MethodGet, path, nil)
		if err != nil || strings.Contains(string(shown.Body), "argon2") || !strings.Contains(string(shown.Body), `"basic":[{"username":"ann"},{"username":"bob"}]`) {
			t.Errorf("the API shows %s, %v", shown.Body, err)
		}
		w.api.Do(t, http.MethodPut, path, map[string]any{"name": "n", "access": map[string]any{"basic": []any{map[string]any{"username": "ann"}}}}, nil)
		if status, _, _ := w.raw(asked(host, "/", "Cookie: "+cookie)); status != 200 {
			t.Errorf("a change that keeps the password ends the cookie: %d", status)
		}
		w.api.Do(t, http.MethodPut, path, map[string]any{"access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "another"}}}}, nil)
		programs.Eventually(t, limit, func() error {
			if status, _, _ := w.raw(asked(host, "/", "Cookie: "+cookie)); status != 401 {
				return fmt.Errorf("with another password the old cookie answers %d", status)
			}
			return nil
		})
		for _, of := range []string{path + "/history", "/api/v1/audit?limit=500"} {
			answer, err := w.api.Call(http.MethodGet, of, nil)
			if err != nil || answer.Status != 200 || strings.Contains(string(answer.Body), "argon2id-ed25519") || strings.Contains(string(answer.Body), "correct horse") {
				t.Errorf("%s shows %.600s, %v", of, answer.Body, err)
			}
		}
		for _, dir := range []string{w.entry.Dir, w.exit.Dir} {
			nowhere(t, dir, "correct horse")
		}
		if w.postgres != "" {
			notInPostgres(t, w.postgres, "correct horse")
			notInRedis(t, w.redis, "correct horse")
		}
		for _, p := range []*programs.Server{w.entry, w.exit} {
			if said := p.Said(1 << 20); strings.Contains(said, "correct horse") || strings.Contains(said, "argon2id-ed25519") {
				t.Errorf("the log has the password: %s", said)
			}
		}
		w.api.Do(t, http.MethodPut, path, map[string]any{"access": map[string]any{}}, nil)
		w.answers(m.URL, 200, "[]")
	})
}

// nowhere fails when a text stands in a file of a folder.
func nowhere(t *testing.T, folder, text string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // files come and go
		}
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), text) {
			t.Errorf("%s has %q in it", name, text)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Wrong passwords are a bounded number from one address, and whoever has a cookie, or
// gave a right password before, does not notice.
func TestWrongPasswordsAreFew(t *testing.T) {
	w := embedded(t)
	m := w.publish(web(t, func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "in") }), map[string]any{"public_host": "shop",
		"access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "correct horse"}}}})
	w.answers(m.URL, 401, "")
	host := "shop." + baseDomain
	if status, _, _ := w.raw(asked(host, "/", annsBasic)); status != 200 {
		t.Fatalf("the password answers %d", status)
	}
	count := map[int]int{}
	for i := range 40 {
		req, _ := http.NewRequest(http.MethodGet, m.URL, nil)
		req.SetBasicAuth("ann", fmt.Sprint("guess", i))
		res, err := w.visitors.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		count[res.StatusCode]++
	}
	if count[429] < 15 || count[401] < 10 || count[401]+count[429] != 40 {
		t.Errorf("40 guesses were answered with %v", count)
	}
	if status, _, _ := w.raw(asked(host, "/", annsBasic)); status != 200 {
		t.Errorf("then the password answers %d", status)
	}
}

// Addresses are let in or not at public hosts and ports, over TCP and UDP; behind a
// trusted proxy it is the visitor's address that counts.
func TestNetworksOfVisitors(t *testing.T) {
	t.Parallel()
	for form, start := range map[string]func(t testing.TB, more ...string) *world{
		"embedded":       embedded,
		"two forwarders": func(t testing.TB, more ...string) *world { return cluster(t, 1, more...) },
	} {
		t.Run(form, func(t *testing.T) {
			first := programs.FreePort(t)
			w := start(t, "--public-ports", fmt.Sprintf("%d-%d", first, first+3), "--public-address", "127.0.0.1", "--trusted-proxies", "127.0.0.9")
			access := func(rules map[string]any) map[string]any { return map[string]any{"access": rules} }
			m := w.publish(web(t, func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "in") }), access(map[string]any{"allow": []string{"127.0.0.0/24", "192.0.2.0/24"}, "deny": []string{"127.0.0.4"}}))
			host := strings.Split(strings.TrimPrefix(m.URL, "http://"), ":")[0]
			from := func(address string, headers ...string) int {
				t.Helper()
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: limit}
				conn, err := d.Dial("tcp", w.address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, asked(host, "/", headers...))
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				return res.StatusCode
			}
			programs.Eventually(t, limit, func() error {
				if status := from("127.0.0.3"); status != 200 {
					return fmt.Errorf("%d", status)
				}
				return nil
			})
			for _, c := range []struct {
				from, forwarded string
				want            int
			}{
				{"127.0.0.3", "", 200}, {"127.0.0.4", "", 403}, {"127.0.1.3", "", 403},
				{"127.0.0.3", "X-Forwarded-For: 203.0.113.1", 200}, {"127.0.0.4", "X-Forwarded-For: 192.0.2.1", 403}, // nobody trusts these
				{"127.0.0.9", "X-Forwarded-For: 192.0.2.1", 200}, {"127.0.0.9", "X-Forwarded-For: 203.0.113.1", 403},
				{"127.0.0.9", "X-Forwarded-For: 192.0.2.1, 203.0.113.1", 403}, {"127.0.0.9", "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.9", 200},
			} {
				var headers []string
				if c.forwarded != "" {
					headers = append(headers, c.forwarded)
				}
				if got := from(c.from, headers...); got != c.want {
					t.Errorf("from %s with %q: %d, want %d", c.from, c.forwarded, got, c.want)
				}
			}
			for _, protocol := range []string{"tcp", "udp"} {
				service := programs.Listen(t, programs.Echo).Port
				if protocol == "udp" {
					service = udpEcho(t)
				}
				var public struct {
					ID      int64  `json:"mapping_id"`
					Address string `json:"public_address"`
				}
				body := w.wanted(service, access(map[string]any{"deny": []string{"127.0.0.4/31"}}))
				body["protocol"] = protocol
				programs.Eventually(t, limit, func() error {
					answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", body)
					if err == nil && answer.Status != http.StatusCreated {
						err = fmt.Errorf("%d %s", answer.Status, answer.Body)
					}
					if err == nil {
						answer.Read(t, &public)
					}
					return err
				})
				programs.Eventually(t, limit, func() error { return echoes(protocol, "127.0.0.3", public.Address) })
				for _, denied := range []string{"127.0.0.4", "127.0.0.5"} {
					if err := echoes(protocol, denied, public.Address); err == nil {
						t.Errorf("%s from %s is let in", protocol, denied)
					}
				}
				w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", public.ID), access(map[string]any{"allow": []string{"127.0.0.4"}}), nil)
				programs.Eventually(t, limit, func() error { return echoes(protocol, "127.0.0.4", public.Address) })
				if err := echoes(protocol, "127.0.0.3", public.Address); err == nil {
					t.Errorf("%s from 127.0.0.3 is let in after the change", protocol)
				}
			}
			if n, err := w.entry.Metric(`tunnox_opens_refused_total{code="visitor_denied"}`); err != nil || n < 4 {
				t.Errorf("%v visitors were denied, %v", n, err)
			}
		})
	}
}

// echoes sends a word from an address and wants it back.
func echoes(network, from, to string) error {
	var local net.Addr = &net.TCPAddr{IP: net.ParseIP(from)}
	if network == "udp" {
		local = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	conn, err := (&net.Dialer{LocalAddr: local, Timeout: limit}).Dial(network, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 16)
	n, err := io.ReadAtLeast(conn, b, 5)
	if err == nil && string(b[:n]) != "hello" {
		err = fmt.Errorf("came back as %q", b[:n])
	}
	return err
}

func udpEcho(t *testing.T) int {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return port(t, conn.LocalAddr().String())
}

// What is passed through by its name is let in by its address too.
func TestNetworksOfVisitorsByName(t *testing.T) {
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := embedded(t, "--tls", at)
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	roots := writeCertificate(t, certificate, key)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "in") }))
	service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	service.StartTLS()
	t.Cleanup(service.Close)
	w.publish(port(t, service.Listener.Addr().String()), map[string]any{"protocol": "tls", "public_host": "shop", "access": map[string]any{"deny": []string{"127.0.0.4"}}})
	from := func(address string) error {
		d := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: limit}, Config: &tls.Config{RootCAs: roots, ServerName: "shop." + baseDomain}}
		conn, err := d.Dial("tcp", at)
		if err == nil {
			conn.Close()
		}
		return err
	}
	programs.Eventually(t, limit, func() error { return from("127.0.0.3") })
	if err := from("127.0.0.4"); err == nil {
		t.Error("a denied visitor is let in")
	}
}

// Over TLS, with HTTP/1.1 and HTTP/2, the cookie has the name and the flags that keep it
// with this host and from connections without TLS.
func TestBasicAccessOverTLS(t *testing.T) {
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	roots := writeCertificate(t, certificate, key)
	secure := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := embedded(t, "--https", secure, "--certificate", certificate, "--certificate-key", key)
	m := w.publish(web(t, func(out http.ResponseWriter, in *http.Request) {
		fmt.Fprintf(out, "%q %q", in.Header["Authorization"], in.Header["Cookie"])
	}), map[string]any{"public_host": "shop", "access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "correct horse"}}}})
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			client := secureVisitors(t, secure, roots, http2)
			ask := func(cookies ...string) (*http.Response, string) {
				req, err := http.NewRequest(http.MethodGet, m.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(cookies) == 0 {
					req.SetBasicAuth("ann", "correct horse")
				}
				for _, c := range cookies {
					req.Header.Add("Cookie", c)
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
				return res, string(body)
			}
			programs.Eventually(t, limit, func() error {
				if res, _ := ask("a=1"); res.StatusCode != 401 {
					return fmt.Errorf("without a password: %s", res.Status)
				}
				return nil
			})
			res, body := ask()
			if res.StatusCode != 200 || body != "[] []" || len(res.Cookies()) != 1 {
				t.Fatalf("with the password: %s %s %v", res.Status, body, res.Cookies())
			}
			c := res.Cookies()[0]
			if c.Name != fmt.Sprintf("__Host-tunnox-access-%d", m.ID) || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
				t.Errorf("the cookie is %+v", c)
			}
			if res, body := ask("a=1", c.Name+"="+c.Value, "b=2"); res.StatusCode != 200 || !strings.Contains(body, "a=1") || !strings.Contains(body, "b=2") || strings.Contains(body, "tunnox") {
				t.Errorf("with the cookie: %s %s", res.Status, body)
			}
			if res, _ := ask(strings.TrimPrefix(c.Name, "__Host-") + "=" + c.Value); res.StatusCode != 401 {
				t.Errorf("with a name that others could set: %s", res.Status)
			}
		})
	}
}
