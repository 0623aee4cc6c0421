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

// askRedis reports whether Redis can be reached.
func askRedis(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := client.Ping(ctx).Err()
	if err == nil {
		return nil
	}
	if _, refused := errors.AsType[redis.Error](err); refused && !redis.HasErrorPrefix(err, "LOADING") {
		return fmt.Errorf("connect to Redis: %w", err)
	}
	return fmt.Errorf("connect to Redis: %w: %w", errAway, err)
}

// redisServer is a Redis server that several contracts use.
type redisServer struct {
	options *redis.Options
	client  *redis.Client
}

// probeKey is the key that takesWrites writes. It expires, and nobody reads it.
const probeKey = "tunnox:probe"

// takesWrites asks Redis to write. A Redis that answers reads and refuses writes, such
// as a replica or one at its limit, is useless.
func (r *redisServer) takesWrites(ctx context.Context) error {
	return r.client.Set(ctx, probeKey, 1, time.Minute).Err()
}

// dialRedis connects to the server of --redis. Its result can be used even with
// errAway, after Redis has come.
func (p *process) dialRedis(ctx context.Context) (*redisServer, error) {
	options, err := redis.ParseURL(p.cfg.Redis)
	if err != nil {
		return nil, usageError{fmt.Errorf("--redis: %w", err)}
	}
	options.ContextTimeoutEnabled = true // otherwise callers wait longer than they want for a Redis that does not answer
	redis.SetLogger(redisLog{p.log.With("part", "redis")})
	client := redis.NewClient(options)
	p.atEnd("redis", func(context.Context) error { return client.Close() })
	return &redisServer{options, client}, askRedis(ctx, client)
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
		reach: func(ctx context.Context) error { return askRedis(ctx, server.client) },
		needs: map[string]func(context.Context) error{"redis": newCheck(server.takesWrites).run}}
	believed := trust(server.client)
	b.signers = &signers{server.client}
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
