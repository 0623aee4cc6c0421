package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestRedisKilled: without Redis bytes flow and commands are accepted; their effects
// reach the agents when Redis is back, empty.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.redis.Kill(t)
	c.carries(t)
	missed := c.create(t) // only the log is needed
	var shown programs.Mapping
	c.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/mappings/%d", missed.ID), nil, &shown)
	if shown != missed {
		t.Errorf("without read models the API shows %+v, want %+v", shown, missed)
	}
	c.carries(t)
	c.redis.Start(t)
	c.serves(t, missed)
	c.works(t, 2)
}

// TestRedisFlushed: read models, feed and presence are lost under load and are rebuilt
// without help.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for range 3 {
		c.redis.Flush(t)
		c.carries(t)
		c.works(t, 1)
	}
}

// TestPostgresKilledUnderLoad: kill -9 of the database under a load of commands. Bytes
// flow, commands are refused with a code that says to try again, and after the restart
// every acknowledged command is there once.
func TestPostgresKilledUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const callers = 4
	acknowledged := make([][]int64, callers)
	var count, refused atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for caller := range callers {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				answer, err := c.Call(http.MethodPost, "/api/v1/clients",
					map[string]any{"user_id": c.user.ID, "client_name": fmt.Sprintf("c-%d-%d", caller, i)})
				var made programs.Client
				switch {
				case err == nil && answer.Status == http.StatusCreated:
					answer.Read(t, &made)
					acknowledged[caller] = append(acknowledged[caller], made.ID)
					count.Add(1)
				case err == nil && answer.Status == http.StatusServiceUnavailable && answer.Problem().Code == "store_unavailable":
					refused.Add(1)
				default:
					t.Errorf("command: %v, %d %s", err, answer.Status, answer.Body)
					return
				}
			}
		})
	}
	reaches := func(n *atomic.Int64, least int64) {
		t.Helper()
		programs.Eventually(t, back, func() error {
			if now := n.Load(); now < least {
				return fmt.Errorf("%d, want %d", now, least)
			}
			return nil
		})
	}
	reaches(&count, 50)
	c.postgres.Kill(t)
	reaches(&refused, 3)
	c.carries(t)
	c.postgres.Start(t)
	reaches(&count, count.Load()+50)
	close(stop)
	load.Wait()

	created := map[int64]int{}
	for _, e := range programs.All[struct {
		Name string
		Data json.RawMessage
	}](t, c.API, "/api/v1/events?limit=500") {
		var data struct {
			ClientID int64 `json:"client_id"`
		}
		if e.Name == "client_created" && json.Unmarshal(e.Data, &data) == nil {
			created[data.ClientID]++
		}
	}
	total := 0
	for _, ids := range acknowledged {
		for _, id := range ids {
			if total++; created[id] != 1 {
				t.Errorf("client %d was acknowledged and is in the log %d times", id, created[id])
			}
		}
	}
	t.Logf("%d commands acknowledged, %d refused while Postgres was away", total, refused.Load())
	c.works(t, 1)
}

// TestControlPlaneKilled: bytes flow without it, and commands after its restart reach
// the agents.
func TestControlPlaneKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.control.Kill()
	c.carries(t)
	c.control.Restart(t)
	c.works(t, 1)
}

// TestForwarderKilled: the agents connect again without help, and get the changes of
// the time in between.
func TestForwarderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.forwarder.Kill()
	missed := c.create(t)
	c.forwarder.Restart(t)
	c.serves(t, missed)
	c.serves(t, c.mapping)
	c.live = programs.Dial(t, c.mapping.LocalPort)
	c.works(t, 2)
}

// TestFrozenControlPlane: a control plane is frozen while another one works, and wakes
// up late. It changes nothing that was done in between.
func TestFrozenControlPlane(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	second := programs.StartControlBeside(t, "127.0.0.1", c.control)
	if err := syscall.Kill(c.control.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	first := c.API
	c.API = second.API
	meanwhile := make([]programs.Mapping, 20)
	for i := range meanwhile {
		meanwhile[i] = c.create(t)
	}
	for _, m := range meanwhile {
		c.serves(t, m)
	}
	c.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", meanwhile[0].ID), map[string]any{"name": "changed"}, nil)
	if err := syscall.Kill(c.control.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.works(t, 1+len(meanwhile))
	c.API = first
	c.works(t, 1+len(meanwhile))
	var shown programs.Mapping
	c.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/mappings/%d", meanwhile[0].ID), nil, &shown)
	if shown.Name != "changed" {
		t.Errorf("the change made while the first was frozen is gone: %+v", shown)
	}
}

// TestEverythingKilled: all processes and both services at once.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	more := c.create(t)
	c.control.Kill()
	c.forwarder.Kill()
	c.redis.Kill(t)
	c.postgres.Kill(t)
	c.postgres.Start(t)
	c.redis.Start(t)
	c.control.Restart(t)
	c.forwarder.Restart(t)
	c.serves(t, more)
	c.serves(t, c.mapping)
	c.live = programs.Dial(t, c.mapping.LocalPort)
	c.works(t, 2)
}
