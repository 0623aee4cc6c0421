package cluster

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestMain lets more tests run at the same time than there are processors: those tests
// mostly wait, and tests that measure run alone before them.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "9"); err != nil {
		panic(err)
	}
	programs.Main(m)
}

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
	return joinAs(t, api, api.CreateUser(t, "ann"), source, target)
}

// joinAs is join for clients of an existing user.
func joinAs(t *testing.T, api *programs.API, user programs.User, source, target *programs.Server) *ends {
	t.Helper()
	e := &ends{API: api, user: user, source: api.CreateClient(t, user.ID, "source"), target: api.CreateClient(t, user.ID, "target")}
	e.sourceAgent = source.Join(t, api, e.source)
	e.targetAgent = target.Join(t, api, e.target)
	return e
}

// mapping makes a mapping and waits until a connection through it works.
func (e *ends) mapping(t *testing.T, port int) int {
	t.Helper()
	m := e.CreateMapping(t, e.wanted(t, port))
	works(t, m.LocalPort)
	return m.LocalPort
}

// wanted is a mapping from a free port of the source agent to a port that the
// target agent dials.
func (e *ends) wanted(t *testing.T, port int) programs.Mapping {
	t.Helper()
	return programs.Mapping{UserID: e.user.ID, Protocol: "tcp", Source: e.source.ID, Target: e.target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: port}
}

// waitListens waits until the agent listens on all ports, as the kernel lists them.
func waitListens(t *testing.T, agent *programs.Process, ports ...int) {
	t.Helper()
	programs.Eventually(t, 10*time.Second, func() error {
		addresses, err := agent.Listens()
		for _, port := range ports {
			if !slices.ContainsFunc(addresses, func(a netip.AddrPort) bool { return int(a.Port()) == port }) {
				return fmt.Errorf("%s listens on %v and not on port %d (%w)", agent.Name, addresses, port, err)
			}
		}
		return err
	})
}

// signal sends a signal to a process of the test.
func signal(t *testing.T, p interface{ PID() int }, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(p.PID(), sig); err != nil {
		t.Fatalf("%v to process %d: %v", sig, p.PID(), err)
	}
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
