package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// What the options of a mapping change is changed, for requests and for upgrades, and a
// change of them holds for the next request.
func TestHTTPOptions(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		service := web(t, func(out http.ResponseWriter, in *http.Request) {
			out.Header().Set("X-Powered-By", "x")
			fmt.Fprintf(out, "%s %s %q %q %q", in.Host, in.RequestURI, in.Header["X-New"], in.Header["X-Old"], in.Header["X-Forwarded-Prefix"])
		})
		m := w.publish(service, map[string]any{"public_host": "shop", "public_path": "/app", "http": map[string]any{"host_header": "localhost:3000", "strip_prefix": "/app",
			"request_headers":  map[string]any{"set": map[string]any{"X-New": "a, b"}, "remove": []string{"X-Old"}},
			"response_headers": map[string]any{"set": map[string]any{"X-Here": "1"}, "remove": []string{"X-Powered-By"}}}})
		w.answers(m.URL+"/x%2Fy?a=b", 200, `localhost:3000 /x%2Fy?a=b ["a, b"] [] ["/app"]`)
		status, header, body := w.raw(asked("shop."+baseDomain, "/app", "X-Old: 1"))
		if status != 200 || body != `localhost:3000 / ["a, b"] [] ["/app"]` || header.Get("X-Here") != "1" || header["X-Powered-By"] != nil {
			t.Errorf("it answers %d %v %s", status, header, body)
		}
		path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
		w.api.Do(t, http.MethodPut, path, map[string]any{"http": map[string]any{}}, nil)
		w.answers(m.URL+"/x", 200, `/app/x [] [] []`)
		w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, path, map[string]any{"http": map[string]any{"request_headers": map[string]any{"set": map[string]any{"X-Forwarded-For": "192.0.2.1"}}}})
		w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, path, map[string]any{"http": map[string]any{"request_headers": map[string]any{"set": map[string]any{"Connection": "close"}}}})
	})
}

// A path of a host cannot be had past the rules of its mapping.
func TestPathsAreNotWalkedAround(t *testing.T) {
	w := embedded(t)
	service := web(t, func(out http.ResponseWriter, in *http.Request) { fmt.Fprintf(out, "service %s", in.URL.Path) })
	w.publish(service, map[string]any{"public_host": "shop"})
	w.publish(service, map[string]any{"public_host": "shop", "public_path": "/admin", "access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "x"}}}})
	w.answers("http://shop."+baseDomain+"/admin", 401, "")
	for _, path := range []string{"/admin/x", "/%61dmin", "/a/../admin", "//admin", "/a/%2e%2e/admin/x", "/a%2f..%2fadmin"} {
		if status, _, body := w.raw(asked("shop."+baseDomain, path)); status != 401 {
			t.Errorf("%s answers %d %s", path, status, body)
		}
	}
	if status, _, body := w.raw(asked("shop."+baseDomain, "/administrator")); status != 200 {
		t.Errorf("another path answers %d %s", status, body)
	}
}

// WebSockets live on while other mappings are made, changed, disabled and deleted, and
// while theirs is renamed and gets other rules (caddy#7222); a changed service gets the
// new ones, and leaves the old ones where they are.
func TestChangesEndNoWebSocket(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, w *world) {
		const sockets, rounds = 100, 100
		named := func(name string) int {
			return web(t, func(out http.ResponseWriter, in *http.Request) {
				if in.Header.Get("Upgrade") == "" {
					fmt.Fprint(out, name)
					return
				}
				conn, b, err := http.NewResponseController(out).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				for {
					line, err := b.ReadString('\n')
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, name+" "+line)
				}
			})
		}
		first, second := named("first"), named("second")
		a := w.publish(first, map[string]any{"public_host": "a"})
		w.answers(a.URL, 200, "first")
		type socket struct {
			net.Conn
			b *bufio.Reader
		}
		open := func() socket {
			t.Helper()
			conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", w.address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(4 * limit))
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a.%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", baseDomain)
			b := bufio.NewReader(conn)
			for {
				line, err := b.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if line == "\r\n" {
					return socket{conn, b}
				}
			}
		}
		says := func(s socket) string {
			if _, err := io.WriteString(s, "hello\n"); err != nil {
				return err.Error()
			}
			line, err := s.b.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			return strings.TrimSuffix(line, " hello\n")
		}
		var all []socket
		for range sockets {
			all = append(all, open())
		}
		lives := func(when string) {
			t.Helper()
			for i, s := range all {
				if got := says(s); got != "first" {
					t.Fatalf("%s the WebSocket %d says %q", when, i, got)
				}
			}
		}
		lives("at first")
		do := func(method, path string, body any) {
			t.Helper()
			w.api.Do(t, method, path, body, nil)
		}
		for i := range rounds {
			var b struct {
				ID int64 `json:"mapping_id"`
			}
			answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", w.wanted(second, map[string]any{"public_host": "b"}))
			if err != nil || answer.Status != http.StatusCreated {
				t.Fatalf("%v %s", err, answer.Body)
			}
			if err := json.Unmarshal(answer.Body, &b); err != nil {
				t.Fatal(err)
			}
			path := fmt.Sprintf("/api/v1/mappings/%d", b.ID)
			do(http.MethodPut, path, map[string]any{"target_port": first, "access": map[string]any{"deny": []string{"192.0.2.1"}}})
			do(http.MethodPost, path+"/disable", nil)
			do(http.MethodDelete, path, nil)
			if i%10 == 0 {
				do(http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", a.ID), map[string]any{"name": fmt.Sprint("round ", i),
					"access": map[string]any{"allow": []string{"127.0.0.0/8"}}, "http": map[string]any{"response_headers": map[string]any{"set": map[string]any{"X-Round": fmt.Sprint(i)}}}})
			}
		}
		w.answers("http://b."+baseDomain+"/", 404, "")
		programs.Eventually(t, limit, func() error {
			if _, header, _ := w.raw(asked("a."+baseDomain, "/")); header.Get("X-Round") != "90" {
				return fmt.Errorf("the last change is not there: %v", header)
			}
			return nil
		})
		lives("after other mappings came and went")
		do(http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", a.ID), map[string]any{"target_port": second})
		w.answers(a.URL, 200, "second")
		lives("after its service was changed")
		if got := says(open()); got != "second" {
			t.Errorf("a new WebSocket says %q", got)
		}
	})
}
