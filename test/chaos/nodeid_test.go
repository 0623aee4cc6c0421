package chaos

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestForwardersStartAfterAFlush: Redis forgets who is which node, and forwarders that
// start at once do not take the id of one that lives. Nobody ends, nothing is cut.
func TestForwardersStartAfterAFlush(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for range 2 {
		c.redis.Flush(t)
		c.join(t)
		c.join(t)
		c.stays(t)
	}
}

// TestForwarderIsCutOffFromRedis: a node whose lease has run out while it could not
// reach Redis keeps its id, whoever starts meanwhile, and its streams.
func TestForwarderIsCutOffFromRedis(t *testing.T) {
	t.Parallel()
	c := newCluster(t, throughAProxy)
	c.proxy.Cut()
	c.alive(t)
	time.Sleep(directory.TTL + time.Second) // the lease runs out
	c.join(t)
	c.alive(t)
	c.proxy.Heal(t)
	c.stays(t)
}

// throughAProxy has the first forwarder reach Redis through a network that can be cut.
func throughAProxy(t *testing.T, c *cluster) string {
	t.Helper()
	u, err := url.Parse(c.redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	c.proxy = services.StartProxy(t, u.Host)
	u.Host = c.proxy.Addr
	return u.String()
}

// join starts another forwarder, whose data folder is new.
func (c *cluster) join(t *testing.T) {
	t.Helper()
	c.joined = append(c.joined, programs.StartServer(t, "forwarder", "--redis", c.redis.URL(), "--cluster-ca", filepath.Join(c.control.Dir, "cluster-ca.pem")))
}

// stays says that for longer than node ids are leased no forwarder ends, all of them
// are different nodes, and what was connected stays connected.
func (c *cluster) stays(t *testing.T) {
	t.Helper()
	want := 1 + len(c.joined)
	listed := func() error {
		var nodes struct {
			Items []struct {
				ID string `json:"node_id"`
			}
		}
		answer, err := c.Call(http.MethodGet, "/api/v1/nodes", nil)
		if err != nil {
			return err
		}
		answer.Read(t, &nodes)
		var ids []string
		for _, n := range nodes.Items {
			if strings.HasPrefix(n.ID, "node-") { // the control plane is there too
				ids = append(ids, n.ID)
			}
		}
		slices.Sort(ids)
		if len(slices.Compact(ids)) != want {
			return fmt.Errorf("nodes %v, want %d", ids, want)
		}
		return nil
	}
	programs.Eventually(t, back, listed)
	for until := time.Now().Add(directory.TTL + time.Second); time.Now().Before(until); time.Sleep(time.Second / 4) {
		for _, f := range append([]*programs.Server{c.forwarder}, c.joined...) {
			if f.Exited() {
				t.Fatalf("%s ended", f.Name)
			}
		}
	}
	if err := listed(); err != nil {
		t.Error(err)
	}
	c.carries(t)
	c.works(t, 1)
}
