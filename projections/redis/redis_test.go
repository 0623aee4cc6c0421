package redis_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
	"github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func connect(t testing.TB, url string) (*redis.Store, *goredis.Client) {
	t.Helper()
	opts, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.DialerRetries = 1
	c := goredis.NewClient(opts)
	s := redis.New(c, key(t).Trust(), nil)
	t.Cleanup(func() {
		_ = s.Close()
		_ = c.Close()
	})
	return s, c
}

func backend(t testing.TB) projectionstest.Backend {
	s, c := connect(t, services.Redis(t))
	return projectionstest.Backend{Store: s, Flush: func() {
		if err := c.FlushDB(context.Background()).Err(); err != nil {
			t.Error(err)
		}
	}}
}

func TestStore(t *testing.T) { projectionstest.Run(t, backend) }

// run runs a projector until the test ends.
func run(t *testing.T, log *projectionstest.Log, s projections.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- projections.NewProjector(log, s, projections.Options{}).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func equal(t *testing.T, log *projectionstest.Log, s projections.Store) {
	t.Helper()
	m, err := projectionstest.NewModel(log, log.Position())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err = m.Check(context.Background(), projections.NewReader(s), log); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestKilledServerIsBuiltAnewOrCaughtUp(t *testing.T) {
	for name, args := range map[string][]string{"all lost": nil, "kept": {"--appendonly", "yes", "--appendfsync", "always"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits more than it works
			server := services.StartRedis(t, args...)
			s, _ := connect(t, server.URL())
			log := projectionstest.NewLog(0)
			h := projectionstest.NewHistory(log, projectionstest.Seeded(1))
			grow := func(n int) {
				for range n {
					h.Step()
				}
			}
			grow(300)
			run(t, log, s)
			equal(t, log, s)
			grow(500) // the kill falls among these batches
			server.Kill(t)
			grow(50)
			if _, _, err := projections.NewReader(s).Users(context.Background(), 0, 1); !errors.Is(err, projections.ErrUnavailable) {
				t.Errorf("read from a dead server: %v, want ErrUnavailable", err)
			}
			server.Start(t)
			equal(t, log, s)
		})
	}
}

// A key that is gone, because Redis evicts keys or somebody has deleted it, is not taken
// for an empty one: what is read is right or refused, and all is built anew.
func TestAKeyThatIsGoneIsMissed(t *testing.T) {
	// Each key costs the wait for a projector that builds anew. The kinds of keys are
	// dealt to several databases, so that the waits overlap.
	const databases = 8
	var found [databases]map[string]bool
	t.Run("kinds", func(t *testing.T) {
		for i := range databases {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				found[i] = removeKeys(t, func(name string) bool { return crc32.ChecksumIEEE([]byte(name))%databases == uint32(i) })
			})
		}
	})
	names := map[string]bool{}
	for _, some := range found {
		maps.Copy(names, some)
	}
	if len(names) < 10 {
		t.Errorf("only %d keys: %v", len(names), names)
	}
}

// removeKeys removes a key of each kind that may be removed, one at a time, and gives
// their names.
func removeKeys(t *testing.T, may func(name string) bool) map[string]bool {
	ctx := context.Background()
	s, c := connect(t, services.Redis(t))
	log := projectionstest.NewLog(0)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(3))
	for range 200 {
		h.Step()
	}
	run(t, log, s)
	equal(t, log, s)
	names := map[string]bool{}
	for {
		keys, err := c.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		left := false
		for _, key := range keys {
			name := key // without the version, and one of each kind of list
			if parts := strings.SplitN(key, ":", 3); len(parts) == 3 {
				name = strings.TrimRight(parts[2], "0123456789")
			}
			if names[name] || !may(name) {
				continue
			}
			names[name], left = true, true
			if err := c.Del(ctx, key).Err(); err != nil {
				t.Fatal(err)
			}
			h.Step() // a write is no reason to take what is left for whole
			equal(t, log, s)
			break // the other keys may be of the version before
		}
		if !left {
			return names
		}
	}
}

// The list of the keys that are not empty can be evicted too. A write after that does
// not make a shorter list of it, with which other lost keys would count as empty.
func TestLostListOfKeysIsMissed(t *testing.T) {
	ctx := context.Background()
	s, c := connect(t, services.Redis(t))
	log := projectionstest.NewLog(0)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(3))
	for range 200 {
		h.Step()
	}
	run(t, log, s)
	equal(t, log, s)
	drop := func(pattern string) {
		t.Helper()
		keys, err := c.Keys(ctx, pattern).Result()
		if err == nil && len(keys) > 0 {
			err = c.Del(ctx, keys...).Err()
		}
		if err != nil || len(keys) == 0 {
			t.Fatalf("drop %s: %d keys, %v", pattern, len(keys), err)
		}
	}
	drop("*:full")
	h.Step()
	equal(t, log, s)
	drop("*:index:webhooks")
	equal(t, log, s)
}

func TestReplacedVersionsLeaveNoKeys(t *testing.T) {
	ctx := context.Background()
	s, c := connect(t, services.Redis(t))
	log := projectionstest.NewLog(0)
	h := projectionstest.NewHistory(log, projectionstest.Seeded(2))
	for range 100 {
		h.Step()
	}
	// Each log replaces the read models of the one before.
	for i := range byte(4) {
		other := projectionstest.NewLog(i)
		h := projectionstest.NewHistory(other, projectionstest.Seeded(2))
		for range 100 {
			h.Step()
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- projections.NewProjector(other, s, projections.Options{}).Run(ctx) }()
		equal(t, other, s)
		cancel()
		<-done
	}
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]bool{}
	for _, key := range keys {
		if !strings.HasPrefix(key, fmt.Sprintf("{rm%d}:", projections.Schema)) {
			t.Errorf("key %q is outside the read models' hash tag", key)
		}
		if part := strings.Split(key, ":"); len(part) > 2 {
			versions[part[1]] = true
		}
	}
	if len(versions) != 1 {
		t.Errorf("keys of versions %v are left, want of one", versions)
	}
}

func BenchmarkStore(b *testing.B) { projectionstest.Bench(b, backend) }

func key(t testing.TB) *attest.Key {
	t.Helper()
	k, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return k
}
