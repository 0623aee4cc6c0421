package flow

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

// scene is a test of the whole with a fresh server of one form. serve starts the
// server, with further arguments.
type scene func(t *testing.T, serve func(args ...string) *programs.Server)

// inBothForms runs a scene embedded, then over Postgres and Redis.
func inBothForms(t *testing.T, test scene) {
	t.Run("embedded", func(t *testing.T) { embedded(t, test) })
	t.Run("postgres and redis", func(t *testing.T) { overServices(t, test) })
}

// inEveryForm is inBothForms, and then over a cluster: the source agent at one
// forwarder and the target agent at another.
func inEveryForm(t *testing.T, test scene) {
	inBothForms(t, test)
	t.Run("cluster", func(t *testing.T) {
		cluster := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
		test(t, func(...string) *programs.Server { return cluster.Server() })
	})
}

// inBothFormsAtOnce is inBothForms for a scene that mostly waits.
func inBothFormsAtOnce(t *testing.T, test scene) {
	t.Run("embedded", func(t *testing.T) { t.Parallel(); embedded(t, test) })
	t.Run("postgres and redis", func(t *testing.T) { t.Parallel(); overServices(t, test) })
}

func embedded(t *testing.T, test scene) {
	test(t, func(args ...string) *programs.Server { return programs.Serve(t, args...) })
}

func overServices(t *testing.T, test scene) {
	test(t, func(args ...string) *programs.Server {
		return programs.Serve(t, append(args, "--postgres", services.Postgres(t), "--redis", services.Redis(t))...)
	})
}

// pair is a user with two clients whose agents are connected.
type pair struct {
	*programs.API
	server         *programs.Server
	user           programs.User
	source, target programs.Client
	sourceAgent    *programs.Process
	targetAgent    *programs.Process
}

func newPair(t *testing.T, server *programs.Server) *pair {
	t.Helper()
	p := newPairOn(t, server.API, server)
	for _, c := range []programs.Client{p.source, p.target} {
		p.waitAnnounced(t, c)
	}
	return p
}

// newPairOn is newPair for a control plane and a forwarder that are two processes. The
// forwarder may have no control plane to announce keys to.
func newPairOn(t *testing.T, api *programs.API, server *programs.Server) *pair {
	t.Helper()
	p := &pair{API: api, server: server, user: api.CreateUser(t, "ann")}
	p.source, p.target = api.CreateClient(t, p.user.ID, "source"), api.CreateClient(t, p.user.ID, "target")
	p.sourceAgent = server.Join(t, api, p.source)
	p.targetAgent = server.Join(t, api, p.target)
	return p
}

// waitAnnounced waits until an agent has announced its key, so that the log holds still
// after that.
func (p *pair) waitAnnounced(t *testing.T, c programs.Client) {
	t.Helper()
	programs.Eventually(t, 10*time.Second, func() error {
		answer, err := p.API.Call(http.MethodGet, path("/clients/%d/history?limit=500", c.ID), nil)
		if err == nil && !strings.Contains(string(answer.Body), `"client_key_announced"`) {
			err = fmt.Errorf("client %d has announced no key: %s", c.ID, answer.Body)
		}
		return err
	})
}

// mapping makes a mapping from a free port of the source agent to a port the
// target agent dials, and waits until its listener is open.
func (p *pair) mapping(t *testing.T, targetPort int) programs.Mapping {
	t.Helper()
	m := p.CreateMapping(t, p.wanted(programs.FreePort(t), targetPort))
	waitOpen(t, m.LocalPort)
	return m
}

func (p *pair) wanted(localPort, targetPort int) programs.Mapping {
	return programs.Mapping{UserID: p.user.ID, Protocol: "tcp", Source: p.source.ID, Target: p.target.ID,
		LocalPort: localPort, TargetHost: "127.0.0.1", TargetPort: targetPort}
}

func path(format string, ids ...any) string { return "/api/v1" + fmt.Sprintf(format, ids...) }

// answering is a service that sends a name before its echo.
func answering(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if _, err := io.WriteString(c, name+":"); err == nil {
			programs.Echo(c)
		}
	}
}

// waitAnswer waits until a question to a local port gets the wanted answer.
func waitAnswer(t *testing.T, port int, want string) {
	t.Helper()
	programs.Eventually(t, 10*time.Second, func() error { return ask(port, want) })
}

// ask sends the part of want after the colon and compares the answer.
func ask(port int, want string) error {
	_, question, _ := strings.Cut(want, ":")
	got, err := programs.Ask(port, []byte(question))
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("port %d answers %.100q, want %.100q", port, got, want)
	}
	return nil
}

// open reports whether somebody listens on a loopback port.
func open(port int) bool {
	c, err := programs.DialPort(port)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func waitOpen(t *testing.T, port int) {
	t.Helper()
	programs.Eventually(t, 10*time.Second, func() error {
		if !open(port) {
			return fmt.Errorf("port %d is not open", port)
		}
		return nil
	})
}

func readJSON(file string, into any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}
