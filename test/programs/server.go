package programs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startLimit is how long a start may take; a busy machine with a cold cache
// needs seconds.
const startLimit = 30 * time.Second

// Server is a running tunnoxd, whatever its role.
type Server struct {
	*Process
	Dir     string // its --data
	API     *API   // nil for a forwarder
	Agents  string // where agents connect, "" for a control plane
	WS      string // where they connect over WebSocket without TLS around it
	QUIC    string // where they connect over QUIC, "" without
	Metrics string
	State   string // where forwarders find the control plane
	Bridge  string // where other forwarders connect
	Pin     string // the fingerprint of the join line

	role    string
	args    []string
	metrics *API

	forwarders []*Server    // of a cluster: agents use them in turn
	agents     atomic.Int64 // number of agents that were started
}

// Serve starts "tunnoxd serve", embedded unless args name Postgres and Redis, with
// ports that it chooses itself, and waits until it is ready.
func Serve(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartServer(t, "serve", args...)
}

// StartServer starts a role: serve, control or forwarder.
func StartServer(t testing.TB, role string, args ...string) *Server {
	t.Helper()
	return StartServerAt(t, "127.0.0.1", role, args...)
}

// StartServerAt is StartServer on a loopback address of its own.
func StartServerAt(t testing.TB, host, role string, args ...string) *Server {
	t.Helper()
	return startServerIn(t, t.TempDir(), host, role, args)
}

// StartControlBeside starts another control plane in the cluster of first: with the
// same services and API key, and data of its own.
func StartControlBeside(t testing.TB, host string, first *Server) *Server {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "api-key"), []byte(first.API.Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServerIn(t, dir, host, "control", first.args)
}

// forTests are settings for every role with an API. Tests ask faster than any caller
// should, and the receivers of their webhooks are on this machine; the limits have
// tests of their own.
var forTests = []string{"--rate-limit", "0", "--webhook-http", "--webhook-networks", "127.0.0.0/8", "--anonymous", "on"}

func startServerIn(t testing.TB, dir, host, role string, args []string) *Server {
	t.Helper()
	s := &Server{Dir: dir, role: role, args: args}
	s.launch(t, s.anyPorts(host))
	s.WaitReady(t)
	return s
}

// LaunchServer is StartServerAt for a server that cannot be ready yet; see WaitReady.
// Until then only its process can be used.
func LaunchServer(t testing.TB, host, role string, args ...string) *Server {
	t.Helper()
	s := &Server{Dir: t.TempDir(), role: role, args: args}
	s.launch(t, s.anyPorts(host))
	return s
}

// anyPorts gives the arguments with which the server chooses its ports.
func (s *Server) anyPorts(host string) []string {
	anyPort := host + ":0"
	bind := []string{"--metrics", anyPort}
	if s.role == "control" {
		bind = append(bind, "--state", anyPort)
	}
	if s.role != "forwarder" {
		bind = append(append(bind, "--api", anyPort), forTests...)
	}
	if s.role == "serve" {
		bind = append(bind, "--first-invite", "off") // tests count users and invitations
	}
	if s.role != "control" {
		bind = append(bind, "--listen", anyPort, "--bridge", anyPort)
	}
	return bind
}

// Restart starts a server that has ended again, with the same data and addresses, and
// waits until it is ready.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if !s.Exited() {
		t.Fatalf("%s still runs", s.Name)
	}
	bind := []string{"--metrics", s.Metrics}
	if s.API != nil {
		bind = append(bind, "--api", strings.TrimPrefix(s.API.URL, "http://"))
		bind = append(bind, forTests...)
	}
	if s.Agents != "" {
		bind = append(bind, "--listen", s.Agents)
	}
	if s.State != "" {
		bind = append(bind, "--state", s.State)
	}
	if s.Bridge != "" {
		bind = append(bind, "--bridge", s.Bridge)
	}
	// A file of the killed server says nothing about the new one.
	if err := os.Remove(s.addressFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s.launch(t, bind)
	s.WaitReady(t)
}

// RestartWith is Restart with other arguments beside role, data and addresses.
func (s *Server) RestartWith(t testing.TB, args ...string) {
	t.Helper()
	s.args = args
	s.Restart(t)
}

// Args gives the server's arguments except its role, data and addresses.
func (s *Server) Args() []string { return slices.Clone(s.args) }

func (s *Server) addressFile() string { return filepath.Join(s.Dir, "addresses.json") }

func (s *Server) launch(t testing.TB, bind []string) {
	t.Helper()
	args := append([]string{s.role, "--data", s.Dir, "--drain", "2s"}, bind...)
	s.Process = Start(t, "tunnoxd", nil, append(args, s.args...)...)
}

// WaitReady waits until a launched server serves everything that it should.
func (s *Server) WaitReady(t testing.TB) {
	t.Helper()
	s.WaitAPI(t)
	if s.Agents != "" && s.Pin == "" {
		s.Pin = s.Says(`--pin (sha256:\S+)`, startLimit)[1]
	}
}

// WaitAPI waits until a launched server has all of its addresses, and is ready over the
// API, if it has one.
func (s *Server) WaitAPI(t testing.TB) {
	t.Helper()
	var bound struct{ API, Agents, WS, QUIC, Metrics, State, Bridge string }
	Eventually(t, startLimit, func() error {
		if s.Exited() {
			t.Fatalf("%s ended while starting (%v):\n%s", s.Name, s.err, s.Said(8<<10))
		}
		b, err := os.ReadFile(s.addressFile())
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &bound)
	})
	s.Agents, s.WS, s.QUIC, s.Metrics, s.State, s.Bridge = bound.Agents, bound.WS, bound.QUIC, bound.Metrics, bound.State, bound.Bridge
	if s.metrics == nil {
		s.metrics = NewAPI(t, "http://"+s.Metrics, "")
	}
	if bound.API == "" {
		return
	}
	if s.API == nil {
		key, err := os.ReadFile(filepath.Join(s.Dir, "api-key"))
		if err != nil {
			t.Fatal(err)
		}
		s.API = NewAPI(t, "http://"+bound.API, strings.TrimSpace(string(key)))
	}
	Eventually(t, startLimit, func() error {
		answer, err := s.API.Call(http.MethodGet, "/ready", nil)
		if err == nil && answer.Status != http.StatusOK {
			err = fmt.Errorf("%s is not ready: %s", s.Name, answer.Body)
		}
		return err
	})
}

// Join starts an agent as a client and waits until the API shows it online. The auth
// code is in a file, as an operator would do it.
func (s *Server) Join(t testing.TB, api *API, c Client, args ...string) *Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auth-code")
	if err := os.WriteFile(file, []byte(c.AuthCode+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.Agent(t, nil, append([]string{"--client-id", fmt.Sprint(c.ID), "--auth-code-file", file}, args...)...)
	api.WaitOnline(t, c.ID)
	return p
}

// Agent starts an agent for this server with its own state directory.
func (s *Server) Agent(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	if n := int64(len(s.forwarders)); n > 0 {
		s = s.forwarders[(s.agents.Add(1)-1)%n]
	}
	base := []string{"agent", "--server", s.Agents, "--pin", s.Pin, "--state", t.TempDir(), "--sessions", "1"}
	return Start(t, "tunnox", env, append(base, args...)...)
}
