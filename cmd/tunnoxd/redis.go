package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	brokerredis "github.com/tunnox-net/tunnox/broker/redis"
	directoryredis "github.com/tunnox-net/tunnox/directory/redis"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/wait"
)

// errAway is the error of a service that cannot be reached, or has not started yet. If
// a service answers and refuses, the operator must act.
var errAway = errors.New("there is no answer")

// redisServer is a Redis server that several contracts use.
type redisServer struct {
	options *redis.Options
	client  *redis.Client
	guard   *redisGuard
}

// dialRedis connects to the server of --redis. Its result can be used even with
// errAway, after Redis has come.
func (p *process) dialRedis(ctx context.Context) (*redisServer, error) {
	options, err := p.cfg.redisOptions()
	if err != nil {
		return nil, err
	}
	options.ContextTimeoutEnabled = true // otherwise callers wait longer than they want for a Redis that does not answer
	redis.SetLogger(redisLog{p.log.With("part", "redis")})
	guard := guardRedis(options, p.log.With("part", "redis"))
	client := redis.NewClient(options)
	client.AddHook(guard)
	p.atEnd("redis", func(context.Context) error { return errors.Join(client.Close(), guard.probe.Close()) })
	p.run("redis", guard.run)
	p.alarms.add(alarmEviction, newCheck(guard.keepsKeys).run)
	if err := guard.keepsKeys(ctx); err != nil {
		p.log.Error("Redis is not set up as it must be", "error", err)
	}
	return &redisServer{options, client, guard}, guard.takesWrites(ctx)
}

// trusting gives the key that signs what is written to Redis, and the keys to believe.
type trusting func(client *redis.Client) attest.Trust

// openRedis is the part of a cluster that a forwarder has too, all of it in one Redis.
// Its result can be used even with errAway, after Redis has come.
func (p *process) openRedis(ctx context.Context, trust trusting) (between, error) {
	server, err := p.dialRedis(ctx)
	if err != nil && !errors.Is(err, errAway) {
		return between{}, err
	}
	b := between{clustered: true,
		reach: server.guard.takesWrites,
		needs: map[string]func(context.Context) error{"redis": newCheck(server.guard.takesWrites).run}}
	believed := trust(server.client)
	b.signers, b.redis = &signers{server.client}, server.client
	p.feedIn(server, believed, &b)
	p.rowsIn(server, believed, &b)
	p.directoryIn(server, &b)
	return b, err
}

// feedIn keeps the configuration feed, and reports of appends, in Redis.
func (p *process) feedIn(server *redisServer, trust attest.Trust, b *between) {
	options := brokerredis.Options{Metrics: broker.NewMetrics(p.registry), Trust: trust}
	b.publisher = brokerredis.NewPublisher(server.client, options)
	b.follower = brokerredis.NewFollower(server.options, options, p.log.With("part", "feed"))
	b.bell = brokerredis.NewBell(server.client)
}

// rowsIn keeps the read models, and the views that control planes gave, in Redis.
func (p *process) rowsIn(server *redisServer, trust attest.Trust, b *between) {
	rows := projectionsredis.New(server.client, trust, p.log.With("part", "read models"))
	p.atEnd("read models", func(context.Context) error { return rows.Close() })
	b.rows, b.views = rows, projectionsredis.NewViews(server.client, trust)
}

// directoryIn keeps presence, and portions of limits under its leases, in Redis.
func (p *process) directoryIn(server *redisServer, b *between) {
	d := directoryredis.New(server.client, nil)
	b.directory, b.portions = d, d
}

// awaitBetween waits until the services between the processes can be reached, so that
// the processes may start in any order.
func (p *process) awaitBetween(ctx context.Context, b between) error {
	return p.waitFor(ctx, func(ctx context.Context) error {
		told := time.Time{}
		for {
			err := b.reach(ctx)
			if !errors.Is(err, errAway) {
				return err
			}
			if time.Since(told) > 10*time.Second {
				p.log.Warn("waiting for Redis", "error", err)
				told = time.Now()
			}
			if !wait.For(ctx, 250*time.Millisecond) {
				return err
			}
		}
	})
}

// redisLog drops the library's own lines, one for each failed attempt: the caller logs
// what it could not do.
type redisLog struct{ log *slog.Logger }

func (r redisLog) Printf(ctx context.Context, format string, v ...any) {
	r.log.DebugContext(ctx, fmt.Sprintf(format, v...))
}
