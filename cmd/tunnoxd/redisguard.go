package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/wait"
)

const (
	// probeEvery is how often a process tries whether Redis takes writes: many processes
	// write nothing by themselves, and would go on reading what nobody keeps up to date.
	probeEvery = 2 * time.Second
	// probeAgain is the same while Redis refuses them.
	probeAgain = 250 * time.Millisecond
	// probeTime bounds one try, and dialTime the making of a connection.
	probeTime, dialTime = 3 * time.Second, 5 * time.Second
	// probeKey is what is written. It expires, and nobody reads it.
	probeKey = "tunnox:probe"
)

// errRefuses is a Redis that answers reads and refuses writes: it is at its limit of
// memory, it is a replica, or it cannot save. What it shows is old, leases in it run
// out, and nobody can tell from the reads. So it counts as away.
var errRefuses = fmt.Errorf("%w: Redis refuses writes", errAway)

// redisGuard stands between the process and Redis. While Redis refuses writes, each
// command fails at once.
type redisGuard struct {
	log     *slog.Logger
	probe   *redis.Client         // not guarded
	refused atomic.Pointer[error] // nil: writes are taken, as far as is known

	mu    sync.Mutex
	conns map[*guardedConn]struct{} // guarded by mu
}

// guardRedis has the guard watch every connection made with the options from now on.
func guardRedis(options *redis.Options, log *slog.Logger) *redisGuard {
	g := &redisGuard{log: log, conns: map[*guardedConn]struct{}{}}
	own := *options
	own.PoolSize, own.MaxRetries = 1, -1
	g.probe = redis.NewClient(&own)
	if options.DialTimeout == 0 {
		options.DialTimeout = dialTime // NewDialer reads it before the client sets its own
	}
	dial := redis.NewDialer(options)
	options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return g.keep(conn), nil
	}
	return g
}

// takesWrites asks Redis for what is needed of it.
func (g *redisGuard) takesWrites(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := g.probe.Set(ctx, probeKey, 1, time.Minute).Err()
	switch _, answered := errors.AsType[redis.Error](err); {
	case err == nil:
		g.taken()
		return nil
	case refusesWrites(err):
		g.note(err)
		return fmt.Errorf("%w: %w", errRefuses, err)
	case answered && !redis.HasErrorPrefix(err, "LOADING"):
		return fmt.Errorf("connect to Redis: %w", err)
	}
	return fmt.Errorf("connect to Redis: %w: %w", errAway, err)
}

// run probes until ctx ends.
func (g *redisGuard) run(ctx context.Context) error {
	for {
		pause := probeEvery
		if g.refused.Load() != nil {
			pause = probeAgain
		}
		if !wait.For(ctx, pause) {
			return nil
		}
		_ = g.takesWrites(ctx) // noted; an error of another kind is told by who meets it
	}
}

// refusesWrites tells whether the error is that of a server that refuses writes.
func refusesWrites(err error) bool {
	for _, prefix := range []string{"OOM", "READONLY", "MISCONF", "NOREPLICAS"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// note takes up what a command came to.
func (g *redisGuard) note(err error) {
	if err == nil || !refusesWrites(err) {
		return
	}
	refusal := fmt.Errorf("%w: %w", errRefuses, err)
	if g.refused.Swap(&refusal) == nil {
		g.log.Error("Redis answers reads and refuses writes; it is treated as away", "error", err)
	}
}

// taken ends the refusal. Connections are made anew: after a failover they may lead to
// a server that is a replica now.
func (g *redisGuard) taken() {
	if g.refused.Swap(nil) == nil {
		return
	}
	g.log.Info("Redis takes writes again")
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.conns {
		_ = conn.Conn.Close() // who uses it dials another
	}
}

func (g *redisGuard) keep(conn net.Conn) net.Conn {
	c := &guardedConn{Conn: conn, guard: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	return c
}

// guardedConn is a connection that the guard may close.
type guardedConn struct {
	net.Conn
	guard *redisGuard
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	c.guard.mu.Lock()
	delete(c.guard.conns, c)
	c.guard.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn lets the client see whether an idle connection was closed.
func (c *guardedConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nothingToSee{}, nil
}

// nothingToSee is the raw connection of one that is encrypted, which cannot be looked at.
type nothingToSee struct{}

func (nothingToSee) Control(func(uintptr)) error    { return nil }
func (nothingToSee) Read(func(uintptr) bool) error  { return nil }
func (nothingToSee) Write(func(uintptr) bool) error { return nil }

// DialHook implements redis.Hook.
func (g *redisGuard) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (g *redisGuard) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if refusal := g.refused.Load(); refusal != nil {
			cmd.SetErr(*refusal)
			return *refusal
		}
		err := next(ctx, cmd)
		g.note(err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (g *redisGuard) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if refusal := g.refused.Load(); refusal != nil {
			for _, cmd := range cmds {
				cmd.SetErr(*refusal)
			}
			return *refusal
		}
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			g.note(cmd.Err())
		}
		return err
	}
}

// keepsKeys tells whether Redis evicts keys when its memory is full. Lists would be
// shown without what is gone, and nodes would lose their ids.
func (g *redisGuard) keepsKeys(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	info, err := g.probe.Info(ctx, "memory").Result()
	if err != nil {
		return nil // a server may forbid to ask; one that is away is told by others
	}
	said := map[string]string{}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[name] = value
	}
	if policy := said["maxmemory_policy"]; said["maxmemory"] != "0" && policy != "" && policy != "noeviction" {
		return fmt.Errorf("Redis evicts keys when its memory is full (maxmemory-policy %s); set it to noeviction", policy)
	}
	return nil
}
