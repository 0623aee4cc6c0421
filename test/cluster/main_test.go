package cluster

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

func start(t *testing.T, forwarders int) *programs.Cluster {
	t.Helper()
	return programs.StartCluster(t, forwarders, services.Postgres(t), services.Redis(t))
}

// ends are two clients of a user, and their agents.
type ends struct {
	*programs.API
	user                     programs.User
	source, target           programs.Client
	sourceAgent, targetAgent *programs.Process
}

// join connects a source agent to one forwarder and a target agent to another.
func join(t *testing.T, api *programs.API, source, target *programs.Server) *ends {
	t.Helper()
	e := &ends{API: api, user: api.CreateUser(t, "ann")}
	e.source, e.target = api.CreateClient(t, e.user.ID, "source"), api.CreateClient(t, e.user.ID, "target")
	e.sourceAgent = source.Join(t, api, e.source)
	e.targetAgent = target.Join(t, api, e.target)
	return e
}

// mapping makes a mapping and waits until a connection through it works.
func (e *ends) mapping(t *testing.T, port int) int {
	t.Helper()
	m := e.CreateMapping(t, programs.Mapping{UserID: e.user.ID, Protocol: "tcp", Source: e.source.ID, Target: e.target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: port})
	works(t, m.LocalPort)
	return m.LocalPort
}

// works waits until a connection to an echo service goes through.
func works(t *testing.T, port int) {
	t.Helper()
	programs.Eventually(t, 20*time.Second, func() error { return echoes(port) })
}

func echoes(port int) error {
	question := []byte("does it work?")
	answer, err := programs.Ask(port, question)
	if err == nil && !bytes.Equal(answer, question) {
		err = fmt.Errorf("port %d answers %q", port, answer)
	}
	return err
}
