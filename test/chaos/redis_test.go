package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/test/programs"
)

// TestRedisRefusesWrites: a Redis that answers reads and refuses writes, because it is
// at its limit or became a replica, is as bad as one that is away, and not worse: bytes
// flow, limits hold, commands work, nothing old is shown, and readiness tells. When it takes
// writes again all is as before.
func TestRedisRefusesWrites(t *testing.T) {
	for name, sick := range map[string]struct{ begin, end func(*testing.T, *cluster) }{
		"it is away": {
			func(t *testing.T, c *cluster) { c.redis.Kill(t) },
			func(t *testing.T, c *cluster) { c.redis.Start(t) }},
		"it is at its limit": {
			func(t *testing.T, c *cluster) { c.tell(t, "CONFIG", "SET", "maxmemory", "1") },
			func(t *testing.T, c *cluster) { c.tell(t, "CONFIG", "SET", "maxmemory", "0") }},
		"it is a replica": {
			func(t *testing.T, c *cluster) { c.tell(t, "REPLICAOF", "127.0.0.1", "1") },
			func(t *testing.T, c *cluster) { c.tell(t, "REPLICAOF", "NO", "ONE") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", c.user.ID), map[string]any{"max_connections_per_mapping": 20,
				"max_clients": nil, "max_mappings": nil, "max_active_mappings": nil, "total_bandwidth_limit": nil, "monthly_traffic_limit": nil}, nil)
			c.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d", c.user.ID), map[string]any{"password": "correct horse battery staple"}, nil)
			c.carries(t)
			sick.begin(t, c)
			programs.Eventually(t, back, func() error { return c.redisCheck("degraded") })
			for until := time.Now().Add(directory.TTL + 5*time.Second); time.Now().Before(until); time.Sleep(time.Second) {
				c.carries(t)
			}
			var client struct{ Status string }
			c.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", c.source.ID), nil, &client)
			if client.Status != "unknown" {
				t.Errorf("a client that carries bytes is shown as %s", client.Status)
			}
			// The user is found in the log, and can log in.
			c.Do(t, http.MethodPost, "/api/v1/auth/login", map[string]any{"username": "ann", "password": "correct horse battery staple"}, nil)
			made := c.create(t)
			sick.end(t, c)
			c.serves(t, made)
			programs.Eventually(t, back, func() error { return c.redisCheck("ok") })
			programs.Eventually(t, back, func() error {
				answer, err := c.Call(http.MethodPost, "/api/v1/auth/login", map[string]any{"username": "ann", "password": "correct horse battery staple"})
				if err == nil && answer.Status != http.StatusOK {
					err = fmt.Errorf("login: %d %s", answer.Status, answer.Body)
				}
				return err
			})
			c.works(t, 2)
		})
	}
}

// TestReadinessTellsOfEviction: a Redis that would evict keys is shown by both roles.
func TestReadinessTellsOfEviction(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	checks := func(want string) error {
		for _, base := range []string{c.URL, "http://" + c.forwarder.Metrics} {
			answer, err := programs.NewAPI(t, base, "").Call(http.MethodGet, "/ready", nil)
			if err != nil {
				return err
			}
			var ready struct{ Checks map[string]string }
			if err := json.Unmarshal(answer.Body, &ready); err != nil || ready.Checks["redis_memory"] != want || answer.Status != http.StatusOK {
				return fmt.Errorf("%s: %d %s, %v; want redis_memory %s", base, answer.Status, answer.Body, err, want)
			}
		}
		return nil
	}
	programs.Eventually(t, back, func() error { return checks("ok") })
	c.tell(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	programs.Eventually(t, back, func() error { return checks("ok") }) // it has no limit
	c.tell(t, "CONFIG", "SET", "maxmemory", "100mb")
	programs.Eventually(t, back, func() error { return checks("alarm") })
	c.tell(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	programs.Eventually(t, back, func() error { return checks("ok") })
}

// TestAnyKeyIsEvicted: a Redis that evicts keys loses one after the other. Nobody ends,
// no list is shown without what it should have, and everything is there again.
func TestAnyKeyIsEvicted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	client := redis.NewClient(&redis.Options{Addr: c.redis.Addr()})
	defer client.Close()
	seen := map[string]bool{}
	for round := range 2 {
		keys, err := client.Keys(context.Background(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if seen[key] {
				continue
			}
			seen[key] = true
			if err := client.Del(context.Background(), key).Err(); err != nil {
				t.Fatal(err)
			}
			if err := c.whole(); err != nil {
				programs.Eventually(t, back, c.whole)
				t.Logf("%s is missed for a while: %v", key, err)
			}
			c.carries(t)
		}
		t.Logf("round %d: %d keys", round, len(keys))
	}
	if c.forwarder.Exited() || c.control.Exited() {
		t.Fatal("a server ended")
	}
	c.works(t, 1)
}

// whole says that what is listed is complete, or that it cannot be listed now.
func (c *cluster) whole() error {
	for path, want := range map[string]int{"/api/v1/users": 1, "/api/v1/clients": 2, "/api/v1/mappings": 1,
		fmt.Sprintf("/api/v1/users/%d/mappings", c.user.ID): 1, fmt.Sprintf("/api/v1/clients/%d/mappings", c.source.ID): 1} {
		answer, err := c.Call(http.MethodGet, path, nil)
		var page struct{ Items []json.RawMessage }
		switch {
		case err != nil:
			return err
		case answer.Status == http.StatusServiceUnavailable:
			return fmt.Errorf("%s: %s", path, answer.Body)
		case json.Unmarshal(answer.Body, &page) != nil || len(page.Items) != want:
			return fmt.Errorf("%s shows %d of %d with status %d", path, len(page.Items), want, answer.Status)
		}
	}
	return nil
}

// redisCheck compares what the control plane's readiness says of Redis.
func (c *cluster) redisCheck(want string) error {
	answer, err := c.Call(http.MethodGet, "/ready", nil)
	if err != nil {
		return err
	}
	var ready struct{ Checks map[string]string }
	if err := json.Unmarshal(answer.Body, &ready); err != nil || ready.Checks["redis"] != want {
		return fmt.Errorf("readiness is %d %s, %v; want redis %s", answer.Status, answer.Body, err, want)
	}
	return nil
}

// tell sends Redis a command.
func (c *cluster) tell(t *testing.T, command ...any) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: c.redis.Addr()})
	defer client.Close()
	if err := client.Do(context.Background(), command...).Err(); err != nil {
		t.Fatal(err)
	}
}
