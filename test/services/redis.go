package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// databases is how many logical databases a private server has, one for each test.
	databases = 1024
	// leaseTTL bounds how long a database of a given server stays in use after its test
	// binary was killed.
	leaseTTL = 10 * time.Minute
)

// shared is the server behind [Redis], started by the first test that asks.
var shared struct {
	once sync.Once
	url  string
	err  error
}

// Redis gives the URL of an empty logical database that no other test uses, on
// a server shared by the test binary, or on the one TUNNOX_TEST_REDIS names.
// FLUSHDB empties this database only; FLUSHALL is for [StartRedis].
func Redis(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		if shared.url = os.Getenv("TUNNOX_TEST_REDIS"); shared.url != "" {
			return
		}
		s := &RedisServer{}
		if shared.err = s.begin(nil); shared.err == nil {
			atExit(s.end)
			shared.url = s.URL()
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return leaseDatabase(t, shared.url)
}

// leaseDatabase reserves a logical database of the server by a lease in its database 0,
// because several test binaries may share a given server.
func leaseDatabase(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("redis url: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin := client(t, u, 0)
	defer admin.Close()
	count := 16
	if conf, err := admin.ConfigGet(ctx, "databases").Result(); err == nil {
		if n, err := strconv.Atoi(conf["databases"]); err == nil {
			count = n
		}
	}
	for {
		for _, i := range rand.Perm(count - 1) {
			db, lease := i+1, fmt.Sprintf("tunnox-test:database:%d", i+1)
			err := admin.SetArgs(ctx, lease, t.Name(), redis.SetArgs{Mode: "NX", TTL: leaseTTL}).Err()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				t.Fatalf("lease a redis database: %v", err)
			}
			emptyDatabase(t, u, db)
			t.Cleanup(func() {
				emptyDatabase(t, u, db)
				admin := client(t, u, 0)
				defer admin.Close()
				_ = admin.Del(context.Background(), lease).Err() // it expires anyway
			})
			own := *u
			own.Path = "/" + strconv.Itoa(db)
			return own.String()
		}
		select {
		case <-ctx.Done():
			t.Fatalf("all %d databases of the redis server are in use by other tests", count-1)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func client(t testing.TB, u *url.URL, db int) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(u.String())
	if err != nil {
		t.Fatalf("redis url: %v", err)
	}
	opts.DB, opts.PoolSize = db, 1
	return redis.NewClient(opts)
}

func emptyDatabase(t testing.TB, u *url.URL, db int) {
	t.Helper()
	c := client(t, u, db)
	defer c.Close()
	if err := c.FlushDB(context.Background()).Err(); err != nil {
		t.Errorf("empty redis database %d: %v", db, err)
	}
}

// RedisServer is a redis-server process of one test, to be killed and restarted.
type RedisServer struct {
	port int
	dir  string
	args []string

	mu      sync.Mutex
	process *process // nil while stopped
}

// StartRedis starts a redis-server on a loopback port of its own. It keeps
// nothing on disk unless args say so, for example "--appendonly", "yes". It
// ends with the test.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s := &RedisServer{}
	if err := s.begin(args); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

// URL gives the server's URL; it stays the same over restarts.
func (s *RedisServer) URL() string { return "redis://" + s.Addr() + "/0" }

// Addr gives the server's address, host:port, for a proxy in front of it.
func (s *RedisServer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// PID is the id of the server's process.
func (s *RedisServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.pid()
}

// Kill ends the server as kill -9 does and waits until it is gone.
func (s *RedisServer) Kill(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGKILL) }

// Stop ends the server as an operator does: it saves what its args ask for.
func (s *RedisServer) Stop(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGTERM) }

// Start starts the server again, on the same port and data.
func (s *RedisServer) Start(t testing.TB) {
	t.Helper()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
}

// Flush empties every database of the server.
func (s *RedisServer) Flush(t testing.TB) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 1})
	defer c.Close()
	if err := c.FlushAll(context.Background()).Err(); err != nil {
		t.Fatalf("flush redis: %v", err)
	}
}

// begin finds a port and starts the server; another program may take the port
// in between, so it tries a few.
func (s *RedisServer) begin(args []string) (err error) {
	if s.dir, err = privateDir("tunnox-redis-"); err != nil {
		return err
	}
	s.args = args
	for range 5 {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.launch(); err == nil {
			return nil
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *RedisServer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.end(syscall.SIGKILL)
		s.process = nil
	}
	_ = os.RemoveAll(s.dir)
}

func (s *RedisServer) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		t.Fatal("redis-server is not running")
	}
	s.process.end(sig)
	s.process = nil
}

func (s *RedisServer) launch() error {
	binary, err := findBinary("redis-server", "redis-server")
	if err != nil {
		return err
	}
	log := filepath.Join(s.dir, "redis.log")
	args := append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", log,
		"--databases", strconv.Itoa(databases), "--save", "", "--appendonly", "no"}, s.args...)
	p, err := startProcess(exec.Command(binary, args...))
	if err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	if err := s.await(p); err != nil {
		p.end(syscall.SIGKILL)
		said, _ := os.ReadFile(log) // for the message only
		return fmt.Errorf("redis-server does not answer: %w\n%s", err, said)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	return nil
}

// await returns when the process answers. The server on the port must be ours, and must
// have loaded its data.
func (s *RedisServer) await(p *process) error {
	admin := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 1, MaxRetries: -1, DialerRetries: 1})
	defer admin.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		info, err := admin.Info(context.Background(), "server", "persistence").Result()
		if err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r", p.pid())) && strings.Contains(info, "loading:0\r") {
			return nil
		}
		if p.exited() {
			return errors.New("it has ended")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after 20 s: %w", err)
		}
	}
}
