package hosts

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// named is a service that says its name to whoever connects, and can be stopped and
// started again at its port.
type named struct {
	t    testing.TB
	name string
	port int

	mu   sync.Mutex
	l    net.Listener
	over sync.WaitGroup
}

func serviceNamed(t testing.TB, name string) *named {
	n := &named{t: t, name: name, port: programs.FreePort(t)}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *named) start() {
	n.t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.l = l
	n.mu.Unlock()
	n.over.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.over.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, n.name)
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
}

func (n *named) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.l != nil {
		_ = n.l.Close()
		n.l = nil
	}
}

// hear connects and gives the name of the service, with the connection.
func hear(address string) (string, net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return "", nil, err
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		_ = c.Close()
		return "", nil, err
	}
	return string(b), c, nil
}

// A mapping may have several targets behind several clients: connections are balanced,
// and a target that does not answer is passed over before the visitor notices, whether its
// service, its agent or its forwarder is the one that is away.
func TestTargets(t *testing.T) {
	for form, start := range map[string]func(*testing.T, ...string) *world{
		"embedded":       func(t *testing.T, args ...string) *world { return embedded(t, args...) },
		"two forwarders": func(t *testing.T, args ...string) *world { return cluster(t, 1, args...) },
	} {
		t.Run(form, func(t *testing.T) {
			// Of this form alone: the server of the other one may still have its ports.
			first := programs.FreePort(t)
			w := start(t, "--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1")
			second := w.api.CreateClient(t, w.user.ID, "second")
			w.entry.Join(t, w.api, second) // where visitors come in; the first is at the other forwarder
			a, b := serviceNamed(t, "a"), serviceNamed(t, "b")
			to := func(client programs.Client, n *named, weight int) map[string]any {
				return map[string]any{"client_id": client.ID, "target": fmt.Sprintf("127.0.0.1:%d", n.port), "weight": weight}
			}
			both := []any{to(w.target, a, 3), to(second, b, 1)}
			var m struct {
				ID      int64  `json:"mapping_id"`
				Target  int64  `json:"target_client_id"`
				Port    int    `json:"target_port"`
				Address string `json:"public_address"`
				Targets []struct {
					Weight int `json:"weight"`
				} `json:"targets"`
			}
			programs.Eventually(t, limit, func() error {
				answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": w.user.ID, "protocol": "tcp", "public_port": 0, "targets": both})
				if err == nil && answer.Status != http.StatusCreated {
					err = fmt.Errorf("%d %s", answer.Status, answer.Body)
				}
				if err == nil {
					answer.Read(t, &m)
				}
				return err
			})
			path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
			if m.Target != w.target.ID || m.Port != a.port || len(m.Targets) != 2 || m.Targets[0].Weight != 3 {
				t.Errorf("created %+v", m)
			}
			all := func(n int, want string) {
				t.Helper()
				for i := range n {
					name, c, err := hear(m.Address)
					if err != nil || name != want {
						t.Fatalf("visitor %d of %d is served by %q, want %q, %v", i+1, n, name, want, err)
					}
					_ = c.Close()
				}
			}
			until := func(want string) {
				t.Helper()
				programs.Eventually(t, limit, func() error {
					name, c, err := hear(m.Address)
					if err == nil {
						_ = c.Close()
						if name != want {
							err = fmt.Errorf("served by %q, want %q", name, want)
						}
					}
					return err
				})
			}
			if form == "embedded" { // both are here: by weight
				until("a")
				served := map[string]int{}
				var open []net.Conn
				for range 12 {
					name, c, err := hear(m.Address)
					if err != nil {
						t.Fatal(err)
					}
					served[name]++
					open = append(open, c)
				}
				if served["a"] < 8 || served["b"] < 2 {
					t.Errorf("of 12 connections that stay open each target has %v, want 9 and 3", served)
				}
				for _, c := range open {
					_ = c.Close()
				}
			} else { // the second is at the visitor's forwarder
				until("b")
				all(10, "b")
			}
			// A service that is away, an agent that is away.
			b.stop()
			all(20, "a")
			b.start()
			a.stop()
			until("b")
			all(20, "b")
			a.start()
			b.stop()
			until("a")
			w.agent.Kill()
			b.start()
			until("b")
			all(10, "b")
			w.agent = w.exit.Join(t, w.api, w.target)
			b.stop()
			until("a")
			b.start()

			// One target, and later another: the second's forwarder learns of the mapping then.
			w.api.Do(t, http.MethodPut, path, map[string]any{"targets": []any{}}, nil)
			programs.Eventually(t, limit, func() error {
				for range 5 {
					name, c, err := hear(m.Address)
					if err != nil || name != "a" {
						return fmt.Errorf("served by %q, %w", name, err)
					}
					_ = c.Close()
				}
				return nil
			})
			third := w.api.CreateClient(t, w.user.ID, "third")
			thirds := w.exit.Join(t, w.api, third)
			c := serviceNamed(t, "c")
			w.api.Do(t, http.MethodPut, path, map[string]any{"targets": []any{to(w.target, a, 1), to(third, c, 1)}}, nil)
			a.stop()
			until("c")
			all(10, "c")
			thirds.Kill()
			w.api.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/clients/%d", third.ID), nil, nil)
			a.start()
			until("a")
			all(10, "a")

			bob := w.api.CreateUser(t, "bob")
			other := w.api.CreateClient(t, bob.ID, "other")
			answer, err := w.api.Call(http.MethodPut, path, map[string]any{"targets": []any{to(w.target, a, 1), to(other, c, 1)}})
			if err != nil || answer.Status/100 != 4 {
				t.Errorf("a target of another user: %d %s, %v", answer.Status, answer.Body, err)
			}
			w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, path, map[string]any{"targets": []any{to(second, b, 1)}})
			w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": w.user.ID, "protocol": "tcp", "public_port": 0})
		})
	}
}
