package programs

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// Cluster is a control plane and forwarders that reach each other, every one a
// process with a loopback address of its own.
type Cluster struct {
	Control    *Server
	Forwarders []*Server
}

// StartCluster starts a control plane and n forwarders, these with args. What
// carried streams between them must be unused when the test ends.
func StartCluster(t testing.TB, n int, postgres, redis string, args ...string) *Cluster {
	t.Helper()
	return StartClusterWith(t, n, postgres, redis, nil, args...)
}

// StartClusterWith is StartCluster whose control plane has arguments too.
func StartClusterWith(t testing.TB, n int, postgres, redis string, control []string, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{Control: StartServerAt(t, "127.0.0.10", "control", append([]string{"--postgres", postgres, "--redis", redis}, control...)...)}
	for i := range n {
		c.Forwarders = append(c.Forwarders, StartServerAt(t, fmt.Sprintf("127.0.0.%d", 11+i), "forwarder", append([]string{
			"--redis", redis, "--control", c.Control.State, "--join-token-file", filepath.Join(c.Control.Dir, "join-token")}, args...)...))
	}
	t.Cleanup(func() {
		if err := Poll(10*time.Second, c.Unused); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Server is the cluster as one server: the API of its control plane, and agents
// connected to the forwarders in turn.
func (c *Cluster) Server() *Server {
	c.Control.forwarders = c.Forwarders
	return c.Control
}

// Bridges are the addresses that the forwarders reach each other at.
func (c *Cluster) Bridges() []string {
	var all []string
	for _, f := range c.Forwarders {
		all = append(all, f.Bridge)
	}
	return all
}

// Unused reports streams that the forwarders' pools still have. Call it when all
// connections of the test have ended.
func (c *Cluster) Unused() error {
	for _, f := range c.Forwarders {
		if f.Exited() {
			continue
		}
		for _, name := range []string{"tunnox_bridge_pool_active_streams", "tunnox_bridge_pool_waiting_opens", "tunnox_bridge_server_active_streams"} {
			if used, err := f.Sum(name); err != nil || used != 0 {
				return fmt.Errorf("%s of %s is %v, %v", name, f.Agents, used, err)
			}
		}
	}
	return nil
}
