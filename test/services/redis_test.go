package services_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/test/services"
)

func open(t *testing.T, url string) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.DialerRetries = 1
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestRedisGivesEachTestItsOwnDatabase(t *testing.T) {
	ctx := context.Background()
	a, b := open(t, services.Redis(t)), open(t, services.Redis(t))
	if err := a.Set(ctx, "k", "a", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Exists(ctx, "k").Result(); err != nil || n != 0 {
		t.Fatalf("a key of another test is visible: %d, %v", n, err)
	}
	if err := b.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(ctx, "k").Result(); err != nil || got != "a" {
		t.Fatalf("another test's flush took the key: %q, %v", got, err)
	}
}

func TestRedisServerLosesAllOnKillUnlessAskedToKeep(t *testing.T) {
	for name, args := range map[string][]string{"memory": nil, "append only": {"--appendonly", "yes", "--appendfsync", "always"}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s := services.StartRedis(t, args...)
			c := open(t, s.URL())
			if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			s.Kill(t)
			if err := c.Ping(ctx).Err(); err == nil {
				t.Fatal("the killed server answers")
			}
			s.Start(t)
			n, err := c.Exists(ctx, "k").Result()
			if want := int64(len(args) / 4); err != nil || n != want {
				t.Fatalf("keys after the restart: %d, %v; want %d", n, err, want)
			}
			s.Flush(t)
			s.Stop(t)
		})
	}
}
