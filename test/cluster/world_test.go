package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/truth"
)

// AwayEnv says how long a service is away in the tests that take one away. Longer than
// the leases of the directory live (15 s) is the harder case; the default keeps the
// suite short.
const AwayEnv = "TUNNOX_TEST_AWAY"

func awayTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(AwayEnv)
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", AwayEnv, err)
	}
	return d
}

// settleLimit bounds the time until everything matches the log.
const settleLimit = 40 * time.Second

// world is a cluster of two forwarders, with a client whose mappings lead to a target
// at its own forwarder and to one at the other, for tests that take services away.
type world struct {
	*programs.Cluster
	api     *programs.API
	far     *ends // the target is at the second forwarder
	near    *ends // it is at the first, like the source
	service int
	across  int // ports of the source that lead to the service
	same    int
	live    []*net.TCPConn // through both, since the beginning
}

func newWorld(t *testing.T, postgres, redis string) *world {
	t.Helper()
	return inWorld(t, programs.StartCluster(t, 2, postgres, redis))
}

func inWorld(t *testing.T, c *programs.Cluster) *world {
	t.Helper()
	w := &world{Cluster: c, api: c.Control.API, service: programs.Listen(t, programs.Echo).Port}
	w.far = join(t, w.api, c.Forwarders[0], c.Forwarders[1])
	near := *w.far
	near.target = w.api.CreateClient(t, near.user.ID, "near")
	near.targetAgent = c.Forwarders[0].Join(t, w.api, near.target)
	w.near = &near
	w.across, w.same = w.far.mapping(t, w.service), w.near.mapping(t, w.service)
	for _, port := range []int{w.across, w.same} {
		conn, err := opened(port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		w.live = append(w.live, conn)
	}
	return w
}

// agents are the world's agents, by client.
func (w *world) agents() map[int64]*programs.Process {
	return map[int64]*programs.Process{w.far.source.ID: w.far.sourceAgent, w.far.target.ID: w.far.targetAgent, w.near.target.ID: w.near.targetAgent}
}

// settled waits until the API, the forwarders' knowledge and the agents' listeners
// match the log, without help.
func (w *world) settled(t *testing.T) {
	t.Helper()
	began := time.Now()
	var log *truth.Log
	var err error
	for {
		if log, err = truth.Read(w.api); err == nil {
			err = w.differs(log)
		}
		if err == nil || time.Since(began) > settleLimit {
			break
		}
		time.Sleep(200 * time.Millisecond) // the whole log is read
	}
	if err != nil {
		t.Errorf("after %v: %v", settleLimit, err)
		return
	}
	t.Logf("%v; all equal them after %v", log, time.Since(began).Round(10*time.Millisecond))
}

func (w *world) differs(log *truth.Log) error {
	errs := []error{
		log.Shown(w.api),
		log.Known(w.Forwarders[0], w.far.source.ID, w.near.target.ID),
		log.Known(w.Forwarders[1], w.far.target.ID),
	}
	for client, agent := range w.agents() {
		if agent.Exited() {
			errs = append(errs, fmt.Errorf("the agent of client %d ended", client))
			continue
		}
		errs = append(errs, log.Listened(agent, client), w.far.shows(client, "online"))
	}
	return errors.Join(errs...)
}

// lives checks the connections that are open since the beginning.
func (w *world) lives(t *testing.T) {
	t.Helper()
	for _, conn := range w.live {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := conn.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		if err != nil {
			t.Errorf("a connection that was open all the time: %v", err)
		}
	}
}

// allWell stops a load of connections, none of which may have failed.
func allWell(t *testing.T, traffic *load) {
	t.Helper()
	traffic.Stop()
	all := traffic.between(time.Time{}, time.Time{})
	bad := failed(all)
	t.Logf("%d new connections, %d failed, the slowest took %v", len(all), len(bad), slowest(all).Round(time.Millisecond))
	for _, o := range bad[:min(len(bad), 5)] {
		t.Errorf("a connection begun at %s failed after %v: %v", o.at.Format("15:04:05.000"), o.took.Round(time.Millisecond), o.err)
	}
}
