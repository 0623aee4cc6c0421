package cluster

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// sickWorld is a world in which everybody reaches Redis, Postgres and the second
// forwarder's bridge through proxies.
type sickWorld struct {
	*world
	redis, postgres, bridge *services.Proxy
}

func newSickWorld(t *testing.T) *sickWorld {
	t.Helper()
	redis, postgres := services.StartRedis(t), services.StartPostgres(t, services.PostgresOptions{TCP: true})
	database, err := url.Parse(postgres.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	bridge := fmt.Sprintf("127.0.0.12:%d", programs.FreePort(t))
	s := &sickWorld{redis: services.StartProxy(t, redis.Addr()), postgres: services.StartProxy(t, postgres.Addr()), bridge: services.StartProxy(t, bridge)}
	host, port, _ := strings.Cut(s.postgres.Addr, ":")
	q := database.Query()
	q.Set("host", host)
	q.Set("port", port)
	database.RawQuery = q.Encode()
	redisURL := "redis://" + s.redis.Addr + "/0"

	c := &programs.Cluster{Control: programs.StartServerAt(t, "127.0.0.10", "control", "--postgres", database.String(), "--redis", redisURL)}
	for i, args := range [][]string{nil, {"--bridge", bridge, "--advertise-bridge", s.bridge.Addr}} {
		c.Forwarders = append(c.Forwarders, programs.StartServerAt(t, fmt.Sprintf("127.0.0.%d", 11+i), "forwarder", append([]string{"--redis", redisURL,
			"--control", c.Control.State, "--join-token-file", filepath.Join(c.Control.Dir, "join-token")}, args...)...))
	}
	s.world = inWorld(t, c)
	return s
}

// TestSickBridge: the network between two forwarders is slow, cut, and drops all bytes.
// It delays only streams that cross it, and these recover with it.
func TestSickBridge(t *testing.T) {
	t.Parallel()
	w := newSickWorld(t)
	beside := connections(t, trafficEvery, w.same)

	crossing := connections(t, trafficEvery, w.across)
	w.bridge.Delay(100)
	time.Sleep(2 * time.Second) // the time in which it is slow
	w.bridge.Heal(t)
	allWell(t, crossing)
	if d := slowest(crossing.between(time.Time{}, time.Time{})); d < 100*time.Millisecond {
		t.Errorf("over a bridge that is slow by 100 ms the slowest connection took %v", d)
	}

	for _, sickness := range []struct {
		what string
		make func()
		last time.Duration // longer than a dead peer may seem alive
	}{
		{"cut", w.bridge.Cut, 2 * time.Second},
		{"half open", w.bridge.Swallow, 18 * time.Second},
	} {
		sickness.make()
		crossing := connections(t, 4*trafficEvery, w.across)
		time.Sleep(sickness.last)
		w.bridge.Heal(t)
		healed := time.Now()
		programs.Eventually(t, 20*time.Second, func() error { return echoes(w.across) })
		back := time.Since(healed)
		crossing.Stop()
		meanwhile := crossing.between(time.Time{}, healed)
		t.Logf("bridge %s: %d of %d connections failed, the slowest after %v; they work %v after it was healed", sickness.what,
			len(failed(meanwhile)), len(meanwhile), slowest(meanwhile).Round(time.Millisecond), back.Round(time.Millisecond))
		if n := len(failed(meanwhile)); n == 0 {
			t.Errorf("bridge %s: no connection failed", sickness.what)
		}
		programs.Eventually(t, 20*time.Second, w.Unused)
	}
	allWell(t, beside)
	w.settled(t)
}

// TestSickServices: the network to Redis and to Postgres is slow, cut, and drops all
// bytes.
func TestSickServices(t *testing.T) {
	t.Parallel()
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		w := newSickWorld(t)
		w.sick(t, "Redis", w.redis, false)
	})
	t.Run("Postgres", func(t *testing.T) {
		t.Parallel()
		w := newSickWorld(t)
		w.sick(t, "Postgres", w.postgres, true)
	})
}

// sick is everything that may happen to the network to a service, which may refuse
// commands while it is away.
func (w *sickWorld) sick(t *testing.T, what string, proxy *services.Proxy, refuses bool) {
	t.Helper()
	watch := pace.Measure(t)
	traffic := connections(t, trafficEvery, w.across, w.same)
	for _, sickness := range []struct {
		what string
		make func()
		last time.Duration
		ends bool // what goes on meanwhile
	}{
		{"slow", func() { proxy.Delay(50) }, 2 * time.Second, false},
		{"cut", proxy.Cut, 4 * time.Second, true},
		{"half open", proxy.Swallow, awayTime(t), true},
	} {
		load := commands(t, commandPause, w.far, w.service)
		ofCommands(t, load, 5)
		sickness.make()
		time.Sleep(sickness.last)
		proxy.Heal(t)
		ofCommands(t, load, 5)
		load.Stop()
		all := load.between(time.Time{}, time.Time{})
		for _, o := range failed(all) {
			if !refuses || !sickness.ends || o.status != http.StatusServiceUnavailable {
				t.Errorf("a command with %s %s: %v", what, sickness.what, o.err)
			}
		}
		t.Logf("%s %s: %d commands, %d refused, the slowest took %v", what, sickness.what, len(all), len(failed(all)),
			slowest(all).Round(time.Millisecond))
		w.settled(t)
	}
	w.lives(t)
	allWell(t, traffic)
	// The knowledge that forwarders have of each other suffices for a while, and a
	// forwarder that gets no answers asks rarely.
	if d := slowest(traffic.between(time.Time{}, time.Time{})); d > watch.Allow(3*time.Second) {
		t.Errorf("a connection took %v while a service was away", d)
	}
}
