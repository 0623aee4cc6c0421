package cluster

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

const (
	trafficEvery = 100 * time.Millisecond // a new connection through each mapping
	commandPause = 50 * time.Millisecond
)

// TestRedisAway: Redis is restarted (which may lose a second of its data), emptied, its
// feed trimmed to nothing, and away for a long time. New connections can be made and
// commands are accepted all the time; afterwards everything matches the log.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	redis := services.StartRedis(t, "--appendonly", "yes")
	w := newWorld(t, services.Postgres(t), redis.URL())
	client := goredis.NewClient(&goredis.Options{Addr: redis.Addr()})
	defer client.Close()
	traffic := connections(t, trafficEvery, w.across, w.same)
	for _, phase := range []struct {
		what string
		do   func()
	}{
		{"restarted", func() { redis.Kill(t); redis.Start(t) }},
		{"flushed", func() { redis.Flush(t) }},
		{"its feed trimmed to nothing", func() {
			if n, err := client.XTrimMaxLen(context.Background(), "tunnox:feed", 0).Result(); err != nil || n == 0 {
				t.Errorf("%d entries trimmed: %v", n, err)
			}
		}},
		{"away", func() { redis.Kill(t); time.Sleep(awayTime(t)); redis.Start(t) }},
	} {
		load := commands(t, commandPause, w.far, w.service)
		ofCommands(t, load, 10)
		phase.do()
		ofCommands(t, load, 10)
		load.Stop()
		all := load.between(time.Time{}, time.Time{})
		for _, o := range failed(all) {
			t.Errorf("a command while Redis was %s: %v", phase.what, o.err)
		}
		t.Logf("Redis %s: %d commands, the slowest took %v", phase.what, len(all), slowest(all).Round(time.Millisecond))
		w.settled(t)
	}
	w.lives(t)
	allWell(t, traffic)
}

// TestPostgresAway: Postgres is restarted, and away for a long time. New connections
// can be made; commands are refused with a code that says to try again, and accepted
// when it is back; afterwards everything matches the log.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	postgres := services.StartPostgres(t, services.PostgresOptions{Durable: true})
	w := newWorld(t, postgres.Database(t), services.Redis(t))
	traffic := connections(t, trafficEvery, w.across, w.same)
	for _, phase := range []struct {
		what string
		away time.Duration
	}{{"restarted", 0}, {"away", awayTime(t)}} {
		load := commands(t, commandPause, w.far, w.service)
		ofCommands(t, load, 10)
		postgres.Kill(t)
		down := time.Now()
		time.Sleep(phase.away)
		up := time.Now()
		postgres.Start(t)
		ofCommands(t, load, 10)
		load.Stop()
		all := load.between(time.Time{}, time.Time{})
		for _, o := range failed(all) {
			if o.status != http.StatusServiceUnavailable || o.code != "store_unavailable" {
				t.Errorf("a command while Postgres was %s: %v", phase.what, o.err)
			}
		}
		// A command that begins while Postgres is away, and cannot wait for it, is
		// refused.
		meanwhile := load.between(down, up.Add(-5*time.Second))
		if phase.away > 0 && (len(meanwhile) == 0 || len(failed(meanwhile)) != len(meanwhile)) {
			t.Errorf("of %d commands without Postgres %d were refused", len(meanwhile), len(failed(meanwhile)))
		}
		if d := slowest(all); d > 15*time.Second {
			t.Errorf("a command took %v", d)
		}
		t.Logf("Postgres %s: %d commands, %d refused, the slowest took %v", phase.what, len(all), len(failed(all)), slowest(all).Round(time.Millisecond))
		w.settled(t)
	}
	w.lives(t)
	allWell(t, traffic)
}

// ofCommands waits until this many more commands were accepted.
func ofCommands(t *testing.T, l *load, more int) {
	t.Helper()
	begun := time.Now()
	programs.Eventually(t, settleLimit, func() error {
		now := l.between(begun, time.Time{})
		if n := len(now) - len(failed(now)); n < more {
			return fmt.Errorf("%d commands were taken", n)
		}
		return nil
	})
}
