package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

// back is how long it may take until all is as before. Leases last 15 s.
const back = 30 * time.Second

// cluster is a control plane and a forwarder over services of their own, with
// two agents and a mapping that carries bytes.
type cluster struct {
	postgres           *services.PostgresServer
	redis              *services.RedisServer
	control, forwarder *programs.Server
	*programs.API
	user           programs.User
	source, target programs.Client
	agents         []*programs.Process
	mapping        programs.Mapping
	service        int
	live           *net.TCPConn
	joined         []*programs.Server // forwarders that came later
	proxy          *services.Proxy    // between the first one and Redis; nil: none
}

// newCluster starts one. redisOf says how the forwarder reaches Redis, if not directly.
func newCluster(t *testing.T, redisOf ...func(*testing.T, *cluster) string) *cluster {
	t.Helper()
	c := &cluster{
		postgres: services.StartPostgres(t, services.PostgresOptions{Durable: true}),
		redis:    services.StartRedis(t),
		service:  programs.Listen(t, programs.Echo).Port,
	}
	database := c.postgres.Database(t)
	c.control = programs.StartServer(t, "control", "--postgres", database, "--redis", c.redis.URL())
	redis := c.redis.URL()
	for _, of := range redisOf {
		redis = of(t, c)
	}
	c.forwarder = programs.StartServer(t, "forwarder", "--redis", redis, "--cluster-ca", filepath.Join(c.control.Dir, "cluster-ca.pem"))
	c.API = c.control.API
	c.user = c.CreateUser(t, "ann")
	c.source, c.target = c.CreateClient(t, c.user.ID, "source"), c.CreateClient(t, c.user.ID, "target")
	c.agents = []*programs.Process{c.forwarder.Join(t, c.API, c.source), c.forwarder.Join(t, c.API, c.target)}
	c.mapping = c.create(t)
	c.serves(t, c.mapping)
	c.live = programs.Dial(t, c.mapping.LocalPort)
	c.alive(t)
	return c
}

func (c *cluster) wanted(t *testing.T) programs.Mapping {
	t.Helper()
	return programs.Mapping{UserID: c.user.ID, Protocol: "tcp", Source: c.source.ID, Target: c.target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: c.service}
}

func (c *cluster) create(t *testing.T) programs.Mapping {
	t.Helper()
	return c.CreateMapping(t, c.wanted(t))
}

// serves waits until a mapping carries bytes.
func (c *cluster) serves(t *testing.T, m programs.Mapping) {
	t.Helper()
	programs.Eventually(t, back, func() error { return echo(m.LocalPort) })
}

// carries says that bytes flow at this moment: over a new connection, and over
// the one that lives since before.
func (c *cluster) carries(t *testing.T) {
	t.Helper()
	if err := echo(c.mapping.LocalPort); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	c.alive(t)
}

func (c *cluster) alive(t *testing.T) {
	t.Helper()
	b := []byte("still there?")
	if err := c.live.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.live.Write(b); err != nil {
		t.Fatalf("the connection that lived: %v", err)
	}
	if _, err := io.ReadFull(c.live, b); err != nil {
		t.Fatalf("the connection that lived: %v", err)
	}
}

// works says that all is as before: commands are taken and reach the agents, the
// lists are whole, both clients are shown online, no agent had to be restarted.
func (c *cluster) works(t *testing.T, mappings int) {
	t.Helper()
	c.WaitOnline(t, c.source.ID)
	c.WaitOnline(t, c.target.ID)
	made := c.create(t)
	c.serves(t, made)
	c.carries(t)
	c.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", made.ID), nil, nil)
	programs.Eventually(t, back, func() error {
		if echo(made.LocalPort) == nil {
			return fmt.Errorf("mapping %d was deleted and still carries bytes", made.ID)
		}
		return nil
	})
	programs.Eventually(t, back, func() error {
		answer, err := c.Call(http.MethodGet, fmt.Sprintf("/api/v1/users/%d/mappings?limit=500", c.user.ID), nil)
		var page struct{ Items []programs.Mapping }
		if err == nil {
			err = json.Unmarshal(answer.Body, &page)
		}
		if err == nil && len(page.Items) != mappings {
			err = fmt.Errorf("the list shows %d mappings, want %d: %s", len(page.Items), mappings, answer.Body)
		}
		return err
	})
	for _, agent := range c.agents {
		if agent.Exited() {
			t.Errorf("%s ended", agent.Name)
		}
	}
}

func echo(port int) error {
	got, err := programs.Ask(port, []byte("hello"))
	if err == nil && string(got) != "hello" {
		err = fmt.Errorf("port %d echoes %q", port, got)
	}
	return err
}
