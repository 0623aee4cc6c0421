package flow

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// publicMapping is what the API shows of a public mapping.
type publicMapping struct {
	ID      int64  `json:"mapping_id"`
	Source  *int64 `json:"source_client_id"`
	Port    int    `json:"public_port"`
	Address string `json:"public_address"`
	Status  string `json:"status"`
}

// publicPorts are arguments for public ports on loopback: a few from a free one on.
func publicPorts(t testing.TB) (first int, args []string) {
	first = programs.FreePort(t)
	return first, []string{"--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1"}
}

// greeting is a service that speaks first, and then sends back what it gets.
func greeting(c *net.TCPConn) {
	_, _ = io.WriteString(c, "welcome ")
	programs.Echo(c)
}

// visit connects to a public address and says something.
func visit(address, what string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	word := make([]byte, len("welcome "))
	if _, err := io.ReadFull(conn, word); err != nil { // before the visitor has said anything
		return "", err
	}
	if _, err := io.WriteString(conn, what); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	rest, err := io.ReadAll(conn)
	return string(word) + string(rest), err
}

func visited(t testing.TB, address string) {
	t.Helper()
	programs.Eventually(t, 20*time.Second, func() error {
		got, err := visit(address, "hello")
		if err == nil && got != "welcome hello" {
			err = fmt.Errorf("a visitor hears %q", got)
		}
		return err
	})
}

func refusedAt(t testing.TB, address string) {
	t.Helper()
	programs.Eventually(t, 10*time.Second, func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return nil
		}
		conn.Close()
		return fmt.Errorf("%s still takes connections", address)
	})
}

// A mapping without a source client has a port of the server: chosen and kept, also
// through kill -9, shown with its address, and gone with the mapping.
func TestPublicPorts(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		first, args := publicPorts(t)
		s := serve(args...)
		user := s.API.CreateUser(t, "ann")
		target := s.API.CreateClient(t, user.ID, "target")
		s.Join(t, s.API, target)
		s.API.WaitOnline(t, target.ID)
		service := programs.Listen(t, greeting).Port

		var bound map[string]string
		if text, err := os.ReadFile(filepath.Join(s.Dir, "addresses.json")); err != nil || json.Unmarshal(text, &bound) != nil || bound["public"] != "127.0.0.1" {
			t.Errorf("addresses.json: %s, %v", text, err)
		}
		wanted := func(port any) map[string]any {
			return map[string]any{"user_id": user.ID, "target_client_id": target.ID, "protocol": "tcp", "public_port": port,
				"target_host": "127.0.0.1", "target_port": service}
		}
		var m publicMapping
		created := s.API.Do(t, http.MethodPost, "/api/v1/mappings", wanted(0), &m)
		if m.Source != nil || m.Port < first || m.Port > first+9 || m.Address != fmt.Sprintf("127.0.0.1:%d", m.Port) {
			t.Fatalf("created %+v", m)
		}
		visited(t, m.Address)

		s.API.Refused(t, http.StatusConflict, "public_unavailable", http.MethodPost, "/api/v1/mappings", wanted(first+10))
		s.API.Refused(t, http.StatusConflict, "port_taken", http.MethodPost, "/api/v1/mappings", wanted(m.Port))
		s.API.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPost, "/api/v1/mappings",
			map[string]any{"user_id": user.ID, "source_client_id": target.ID, "target_client_id": target.ID, "protocol": "tcp",
				"local_port": 1, "public_port": first, "target_host": "127.0.0.1", "target_port": service})

		s.Kill()
		s.Restart(t)
		visited(t, m.Address)
		var again publicMapping
		s.API.Do(t, http.MethodGet, path("/mappings/%d", m.ID), nil, &again)
		if again.Port != m.Port {
			t.Errorf("the port was %d and is %d", m.Port, again.Port)
		}

		// What ends the mapping ends its listener and what lives.
		for _, step := range []struct{ method, path string }{{"POST", "/disable"}, {"DELETE", ""}} {
			live, err := net.Dial("tcp", m.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer live.Close()
			if _, err := io.ReadFull(live, make([]byte, len("welcome "))); err != nil {
				t.Fatal(err)
			}
			s.API.Do(t, step.method, path("/mappings/%d%s", m.ID, step.path), nil, nil)
			_ = live.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := live.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("%s: a live connection got %d bytes, %v", step.method, n, err)
			}
			refusedAt(t, m.Address)
			if step.path == "/disable" {
				s.API.Do(t, http.MethodPost, path("/mappings/%d/enable", m.ID), nil, nil)
				visited(t, m.Address)
			}
		}
		var past publicMapping
		s.API.Do(t, http.MethodGet, path("/mappings/%d?as_of=%s", m.ID, created.Header.Get("X-Position")), nil, &past)
		if past.Port != m.Port {
			t.Errorf("as of its creation the mapping is %+v", past)
		}
	})
}

// Of those who ask for one port at the same moment one gets it, and a freed one goes
// to no other user within the hour.
func TestPublicPortHasOneOwner(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		first, args := publicPorts(t)
		s := serve(args...)
		ann, bob := s.API.CreateUser(t, "ann"), s.API.CreateUser(t, "bob")
		targets := map[int64]programs.Client{ann.ID: s.API.CreateClient(t, ann.ID, "a"), bob.ID: s.API.CreateClient(t, bob.ID, "b")}
		wanted := func(user int64, port int) map[string]any {
			return map[string]any{"user_id": user, "target_client_id": targets[user].ID, "protocol": "tcp", "public_port": port,
				"target_host": "127.0.0.1", "target_port": 1}
		}
		for round := range 10 {
			port := first + round
			var mu sync.Mutex
			var asking sync.WaitGroup
			got := map[int]int{}
			for i := range 8 {
				asking.Go(func() {
					answer, err := s.API.Call(http.MethodPost, "/api/v1/mappings", wanted([]int64{ann.ID, bob.ID}[i%2], port))
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					got[answer.Status]++
				})
			}
			asking.Wait()
			if got[http.StatusCreated] != 1 || got[http.StatusConflict] != 7 {
				t.Fatalf("port %d: answers by status are %v", port, got)
			}
		}
		// All ten are taken: none can be chosen.
		s.API.Refused(t, http.StatusConflict, "ports_taken", http.MethodPost, "/api/v1/mappings", wanted(ann.ID, 0))
		var owner int64
		for _, m := range programs.All[struct {
			ID   int64 `json:"mapping_id"`
			User int64 `json:"user_id"`
			Port int   `json:"public_port"`
		}](t, s.API, "/api/v1/mappings") {
			if m.Port == first {
				owner = m.User
				s.API.Do(t, http.MethodDelete, path("/mappings/%d", m.ID), nil, nil)
			}
		}
		other := ann.ID + bob.ID - owner
		s.API.Refused(t, http.StatusConflict, "port_taken", http.MethodPost, "/api/v1/mappings", wanted(other, first))
		s.API.Refused(t, http.StatusConflict, "ports_taken", http.MethodPost, "/api/v1/mappings", wanted(other, 0))
		var back publicMapping
		s.API.Do(t, http.MethodPost, "/api/v1/mappings", wanted(owner, 0), &back)
		if back.Port != first {
			t.Errorf("its owner gets %d, want the one that is left, %d", back.Port, first)
		}
	})
}

// In a cluster the visitor comes in at one forwarder and the agent is at the other;
// the control plane knows the ports of both.
func TestPublicPortsOfACluster(t *testing.T) {
	first, args := publicPorts(t)
	c := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
	a, b := c.Forwarders[0], c.Forwarders[1]
	api := c.Control.API
	user := api.CreateUser(t, "ann")
	target := api.CreateClient(t, user.ID, "target")
	b.Join(t, api, target, "--sessions", "1")
	api.WaitOnline(t, target.ID)
	service := programs.Listen(t, greeting).Port
	wanted := map[string]any{"user_id": user.ID, "target_client_id": target.ID, "protocol": "tcp", "target_host": "127.0.0.1", "target_port": service}
	api.Refused(t, http.StatusConflict, "public_unavailable", http.MethodPost, "/api/v1/mappings", wanted)

	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	a.RestartWith(t, append(a.Args(), args...)...)
	var m publicMapping
	programs.Eventually(t, 10*time.Second, func() error {
		answer, err := api.Call(http.MethodPost, "/api/v1/mappings", wanted)
		if err == nil && answer.Status != http.StatusCreated {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		if err == nil {
			answer.Read(t, &m)
		}
		return err
	})
	visited(t, m.Address)
	a.Kill()
	refusedAt(t, m.Address)
	a.Restart(t)
	visited(t, m.Address)

	// The nth port of a range leads to the nth of the service, over the bridge too.
	_, behind := ownAddresses()
	from := first + 1
	if m.Port < first+5 {
		from = first + 6
	}
	wanted["public_port"] = fmt.Sprintf("%d-%d", from, from+2)
	delete(wanted, "target_host")
	delete(wanted, "target_port")
	wanted["target"] = behind + ":5000-5002"
	for port := 5000; port < 5003; port++ {
		listenAt(t, behind, port)
	}
	api.Do(t, http.MethodPost, "/api/v1/mappings", wanted, nil)
	for n := range 3 {
		leadsTo(t, "127.0.0.1", from+n, 5000+n)
	}
	if n, err := a.Metric("tunnox_opens_total"); err != nil || n < 1 {
		t.Errorf("%v visitors were joined at their forwarder, %v", n, err)
	}
}
