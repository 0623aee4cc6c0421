package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/directory/directorytest"
	"github.com/tunnox-net/tunnox/directory/redis"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func connect(t testing.TB, url string) *goredis.Client {
	t.Helper()
	opts, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.DialerRetries = 1
	c := goredis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestDirectory(t *testing.T) {
	directorytest.Run(t, func(t testing.TB) directorytest.Backend {
		url := services.Redis(t)
		clock, a, b := directorytest.NewClock(), connect(t, url), connect(t, url)
		return directorytest.Backend{A: redis.New(a, clock.Now), B: redis.New(b, clock.Now), Clock: clock, Flush: func() {
			if err := a.FlushDB(context.Background()).Err(); err != nil {
				t.Error(err)
			}
		}}
	})
}

// This test uses the server's own clock, and a server that loses everything, including
// scripts.
func TestRestartedServer(t *testing.T) {
	ctx := context.Background()
	server := services.StartRedis(t)
	d := redis.New(connect(t, server.URL()), nil)
	s := directory.Session{ClientID: 7, Node: "node-001", Run: "r", Session: "s1"}
	var err error
	if s.Epoch, err = d.Register(ctx, s); err != nil {
		t.Fatal(err)
	}
	server.Kill(t)
	if _, err := d.Renew(ctx, []directory.Session{s}); err == nil {
		t.Error("renewed at a dead server")
	}
	server.Start(t)
	var beat directory.Beat
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if beat, err = d.Beat(ctx, s.Node, s.Run); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	ended, err := d.Renew(ctx, []directory.Session{s})
	if err != nil || beat.Known || len(ended) != 0 {
		t.Errorf("after the restart: beat %+v, renewal %+v, %v", beat, ended, err)
	}
	found, err := d.Lookup(ctx, 7)
	if err != nil || !slices.Equal(found[0].Sessions, []directory.Session{s}) ||
		time.Since(found[0].LastSeen).Abs() > time.Minute {
		t.Errorf("after the restart: %+v, %v", found, err)
	}
	again, err := d.Register(ctx, s)
	if err != nil || again <= s.Epoch {
		t.Errorf("epoch %d, %v; was %d", again, err, s.Epoch)
	}
}

func TestKeysEnd(t *testing.T) {
	ctx := context.Background()
	c := connect(t, services.Redis(t))
	d := redis.New(c, nil)
	if _, err := d.Register(ctx, directory.Session{ClientID: 7, Node: "node-001"}); err != nil {
		t.Fatal(err)
	}
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil || !slices.Equal(keys, []string{"tunnox:client:7"}) {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	if left, err := c.TTL(ctx, keys[0]).Result(); err != nil || left < directory.Memory-time.Hour || left > directory.Memory {
		t.Errorf("the key ends in %s, %v", left, err)
	}
}

func BenchmarkRenew(b *testing.B) {
	ctx := context.Background()
	d := redis.New(connect(b, services.Redis(b)), nil)
	var sessions []directory.Session
	for id := range int64(1000) {
		s := directory.Session{ClientID: id + 1, Node: "node-001", Session: "s", Instance: "i", Version: "1.0.0", Address: "192.0.2.1:1"}
		var err error
		if s.Epoch, err = d.Register(ctx, s); err != nil {
			b.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	for b.Loop() {
		if ended, err := d.Renew(ctx, sessions); err != nil || len(ended) > 0 {
			b.Fatal(ended, err)
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
}

func TestOwnersOfTheIDsOnlyAreKept(t *testing.T) {
	ctx := context.Background()
	c := connect(t, services.Redis(t))
	clock := directorytest.NewClock()
	for _, owner := range []string{"ann", "bob", "cid"} {
		if id, err := redis.New(c, clock.Now).LeaseID(ctx, owner); err != nil || id != "node-001" {
			t.Fatalf("%s leases %s, %v", owner, id, err)
		}
		clock.Advance(directory.TTL + directory.IDKept)
	}
	if n, err := c.HLen(ctx, "{tunnox:nodes}:owners").Result(); err != nil || n != 1 {
		t.Errorf("%d owners are kept, %v; want the one that has the id", n, err)
	}
}

// After a flush a node that starts gets the first free id, which may be the id of a
// living node. The living node gets its id back, and the sessions that the other node
// has registered under this id are fenced.
func TestALivingNodeKeepsItsIDOverAFlush(t *testing.T) {
	for _, beaten := range []bool{false, true} {
		t.Run(fmt.Sprintf("the living node beat first %v", beaten), func(t *testing.T) {
			ctx, url := t.Context(), services.Redis(t)
			client := connect(t, url)
			living, other := redis.New(client, nil), redis.New(connect(t, url), nil)
			lease := func(d *redis.Directory, owner, want string) {
				t.Helper()
				if id, err := d.LeaseID(ctx, owner); id != want || err != nil {
					t.Fatalf("%s has %s, %v; want %s", owner, id, err, want)
				}
			}
			beat := func(d *redis.Directory, run string, want error) {
				t.Helper()
				if _, err := d.Beat(ctx, "node-001", run); !errors.Is(err, want) {
					t.Fatalf("beat of %s: %v, want %v", run, err, want)
				}
			}
			lease(living, "living", "node-001")
			beat(living, "run-l", nil)
			if err := client.FlushDB(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if beaten {
				beat(living, "run-l", nil)
			}
			lease(other, "other", "node-001")
			beat(other, "run-o", nil)
			lease(living, "living", "node-001")
			beat(living, "run-l", nil)
			beat(other, "run-o", directory.ErrNodeTaken)
			beat(living, "run-l", nil)
			lease(other, "other", "node-002")
			lease(living, "living", "node-001")
			// The other owner has the id for good now.
			late := redis.New(connect(t, url), nil)
			late.Recall("late", "node-001")
			lease(late, "late", "node-003")
		})
	}
}

// An id is kept for a node that is silent. After IDKept it may be leased to another
// owner, and then stays with that one.
func TestAnIDThatWasLostIsNotTakenBack(t *testing.T) {
	ctx, url := t.Context(), services.Redis(t)
	clock := time.Now()
	now := func() time.Time { return clock }
	frozen, next := redis.New(connect(t, url), now), redis.New(connect(t, url), now)
	for _, step := range []struct {
		of    *redis.Directory
		owner string
		after time.Duration
		want  string
	}{
		{frozen, "frozen", 0, "node-001"},
		{next, "next", directory.TTL + time.Second, "node-002"},
		{frozen, "frozen", directory.IDKept - time.Minute, "node-001"},
		{next, "next", time.Second, "node-002"},
		{next, "next", directory.TTL + directory.IDKept, "node-002"},
		{next, "another", 0, "node-001"},
		{frozen, "frozen", time.Second, "node-003"},
		{next, "next", time.Second, "node-002"},
	} {
		clock = clock.Add(step.after)
		if id, err := step.of.LeaseID(ctx, step.owner); id != step.want || err != nil {
			t.Errorf("%s has %s, %v; want %s", step.owner, id, err, step.want)
		}
	}
}

// After a flush the id of a node that watches its channel is leased to no other owner,
// also before that node has asked for the id again.
func TestAnIDThatSomebodyListensForIsNotFree(t *testing.T) {
	ctx, url := t.Context(), services.Redis(t)
	client := connect(t, url)
	living, other := redis.New(client, nil), redis.New(connect(t, url), nil)
	if id, err := living.LeaseID(ctx, "living"); id != "node-001" || err != nil {
		t.Fatal(id, err)
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- living.Watch(watching, "node-001", func(directory.Notice) {}) }()
	channel := fmt.Sprintf("tunnox:node:%d:node-001", client.Options().DB)
	if !pace.Until(10*time.Second, time.Millisecond, func() bool {
		n, err := client.PubSubNumSub(ctx, channel).Result()
		return err == nil && n[channel] == 1
	}) {
		t.Fatal("nobody listens at", channel)
	}
	if err := client.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		of          *redis.Directory
		owner, want string
	}{{other, "other", "node-002"}, {living, "living", "node-001"}, {other, "other", "node-002"}} {
		if id, err := step.of.LeaseID(ctx, step.owner); id != step.want || err != nil {
			t.Errorf("%s has %s, %v; want %s", step.owner, id, err, step.want)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A node that starts after a flush says which id it had.
func TestAnIDIsRecalled(t *testing.T) {
	ctx, url := t.Context(), services.Redis(t)
	any, again := redis.New(connect(t, url), nil), redis.New(connect(t, url), nil)
	again.Recall("again", "node-002")
	again.Recall("again", "nonsense")
	for _, step := range []struct {
		of    *redis.Directory
		owner string
		want  string
	}{{again, "again", "node-002"}, {any, "any", "node-001"}, {any, "another", "node-003"}, {again, "again", "node-002"}} {
		if id, err := step.of.LeaseID(ctx, step.owner); id != step.want || err != nil {
			t.Errorf("%s has %s, %v; want %s", step.owner, id, err, step.want)
		}
	}
}
