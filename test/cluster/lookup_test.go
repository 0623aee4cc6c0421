package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestLookupsAfterFlush: after Redis was emptied, all agents connect to a forwarder
// again. Each of them is looked up at the level that knows it, and when Redis is full
// again, almost none of them needs the control plane.
func TestLookupsAfterFlush(t *testing.T) {
	t.Parallel()
	const agents = 200
	redis := services.StartRedis(t)
	c := programs.StartCluster(t, 1, services.Postgres(t), redis.URL())
	f := startFleet(t, c.Control.API, agents, c.Forwarders[0])
	forwarder := c.Forwarders[0]
	again := func(what string) (remote float64) {
		t.Helper()
		forwarder.Kill()
		died := time.Now()
		forwarder.Restart(t)
		f.waitWelcomed(t, agents, died)
		answered := map[string]float64{}
		all := 0.0
		for _, level := range []string{"memory", "read_model", "state"} {
			n, err := forwarder.Sum(fmt.Sprintf(`tunnox_lookups_total{level="%s"}`, level))
			if err != nil {
				t.Fatal(err)
			}
			answered[level] = n
			all += n
		}
		t.Logf("%s: %d agents are back %v after the forwarder ended; lookups answered by %v", what, agents, time.Since(died).Round(10*time.Millisecond), answered)
		if all < agents {
			t.Errorf("%s: %v lookups for %d agents", what, all, agents)
		}
		return answered["state"] / all
	}
	redis.Flush(t)
	again("Redis was emptied")
	programs.Eventually(t, settleLimit, func() error { // it refills
		list, err := programs.List[programs.Client](c.Control.API, fmt.Sprintf("/api/v1/users/%d/clients?limit=500", f.user.ID))
		if err == nil && len(list) != agents {
			err = fmt.Errorf("the list shows %d clients", len(list))
		}
		return err
	})
	// The rows are back before the certificate of the key that signs them, which is
	// written every half a second. Nobody waits for read models that answer late, so a
	// start may find them unusable; the next ones do not.
	programs.Eventually(t, settleLimit, func() error {
		if part := again("Redis is full"); part == 1 {
			return errors.New("no lookup was answered by the read models")
		}
		return nil
	})
}
