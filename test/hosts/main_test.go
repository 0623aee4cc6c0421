package hosts

import (
	"context"
	"encoding/json"
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
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

const baseDomain = "t.example.org"

// limit bounds what a test waits for; it decides nothing.
const limit = 30 * time.Second

// world is a server, or a cluster, whose public hosts a visitor asks for, with a user
// and a client whose agent is connected.
type world struct {
	t        testing.TB
	api      *programs.API
	entry    *programs.Server // where the visitor comes in
	exit     *programs.Server // where the agent is connected
	address  string           // of the entry's --http
	postgres string           // of a cluster; "" = there is none
	redis    string           // the same
	user     programs.User
	target   programs.Client
	agent    *programs.Process
	visitors *http.Client
}

// mapping is what the API shows of a mapping with a public host.
type mapping struct {
	ID      int64  `json:"mapping_id"`
	Source  *int64 `json:"source_client_id"`
	Host    string `json:"public_host"`
	Path    string `json:"public_path"`
	URL     string `json:"public_url"`
	Scheme  string `json:"target_scheme"`
	Service int    `json:"target_port"`
	Status  string `json:"status"`
}

// settings are arguments of who serves public hosts, on a port that stays the same
// when the process starts anew.
func settings(t testing.TB, more ...string) (address string, args []string) {
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	return address, append([]string{"--http", address, "--base-domain", baseDomain}, more...)
}

// everywhere runs a test with visitor and agent at one embedded server, at one
// forwarder of a cluster, and at two.
func everywhere(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("embedded", func(t *testing.T) { test(t, embedded(t)) })
	t.Run("one forwarder", func(t *testing.T) { test(t, cluster(t, 0)) })
	t.Run("two forwarders", func(t *testing.T) { test(t, cluster(t, 1)) })
}

func embedded(t testing.TB, more ...string) *world {
	address, args := settings(t, more...)
	s := programs.Serve(t, args...)
	return newWorld(t, s.API, s, s, address)
}

// cluster is a control plane and two forwarders; the visitor comes in at the first, and
// the agent is at one of them.
func cluster(t testing.TB, agentAt int, more ...string) *world {
	address, args := settings(t, more...)
	postgres, redis := services.Postgres(t), services.Redis(t)
	c := programs.StartCluster(t, 1, postgres, redis, args...)
	exit := c.Forwarders[0]
	if agentAt == 1 {
		exit = programs.StartServerAt(t, "127.0.0.12", "forwarder", "--redis", redis, "--control", c.Control.State,
			"--join-token-file", filepath.Join(c.Control.Dir, "join-token"))
	}
	w := newWorld(t, c.Control.API, c.Forwarders[0], exit, address)
	w.postgres, w.redis = postgres, redis
	return w
}

func newWorld(t testing.TB, api *programs.API, entry, exit *programs.Server, address string) *world {
	w := &world{t: t, api: api, entry: entry, exit: exit, address: address}
	w.user = api.CreateUser(t, "ann")
	w.target = api.CreateClient(t, w.user.ID, "target")
	w.agent = exit.Join(t, api, w.target)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	w.visitors = &http.Client{Transport: transport, Timeout: limit}
	return w
}

// wanted is the body that makes a mapping to a port of this machine.
func (w *world) wanted(port int, more map[string]any) map[string]any {
	body := map[string]any{"user_id": w.user.ID, "target_client_id": w.target.ID, "protocol": "http", "target_host": "127.0.0.1", "target_port": port}
	for name, value := range more {
		body[name] = value
	}
	return body
}

// publish makes a mapping, as soon as a forwarder has announced that it serves hosts.
func (w *world) publish(port int, more map[string]any) mapping {
	w.t.Helper()
	var m mapping
	programs.Eventually(w.t, limit, func() error {
		answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", w.wanted(port, more))
		if err == nil && answer.Status != http.StatusCreated {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		if err == nil {
			answer.Read(w.t, &m)
		}
		return err
	})
	w.t.Cleanup(func() {
		_, _ = w.api.Call(http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", m.ID), nil) // the server may be gone
	})
	return m
}

// port is the port of a server of this test.
func port(t testing.TB, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// web is a service.
func web(t testing.TB, handler http.HandlerFunc) int {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return port(t, s.Listener.Addr().String())
}

// get asks for a URL and gives status and body.
func (w *world) get(url string, headers ...string) (status int, body string, err error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.visitors.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// answers waits until a URL answers as it should.
func (w *world) answers(url string, status int, body string) {
	w.t.Helper()
	programs.Eventually(w.t, limit, func() error {
		got, text, err := w.get(url)
		if err == nil && (got != status || !strings.Contains(text, body)) {
			err = fmt.Errorf("%s answers %d %.200q, want %d and %q", url, got, text, status, body)
		}
		return err
	})
}

func (w *world) addresses() (bound map[string]string) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.entry.Dir, "addresses.json"))
	if err == nil {
		err = json.Unmarshal(text, &bound)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return bound
}
