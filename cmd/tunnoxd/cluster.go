package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/broker"
	brokerredis "github.com/tunnox-net/tunnox/broker/redis"
	directoryredis "github.com/tunnox-net/tunnox/directory/redis"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/primary"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
)

// openCluster works over Postgres and Redis, which others use at the same time.
func (p *process) openCluster(ctx context.Context) (*backend, error) {
	b, err := p.openRedis(ctx)
	switch {
	case errors.Is(err, errAway):
		b.away = true
		p.log.Warn("starting without Redis: commands are taken and single resources read from the log; lists, forwarders and agents follow when Redis is there", "error", err)
	case err != nil:
		return nil, err
	}
	if err := makeFirstSchema(ctx, p.cfg.Postgres); err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, p.cfg.Postgres, postgres.Options{})
	if errors.Is(err, eventstore.ErrSchema) {
		return nil, fmt.Errorf("%w\n  for an older one, with a backup at hand and the other servers stopped: tunnoxd migrate --postgres URL", err)
	}
	if err != nil {
		return nil, err
	}
	p.atEnd("event store", func(context.Context) error { return store.Close() })
	b.raw, b.store = store, eventstore.NewPersonal(store)
	p.tellAppends(store, b.redis)
	b.shared, err = p.openShared(ctx)
	return b, err
}

// makeFirstSchema gives a database that has no schema of ours its first. An
// older one is left to "tunnoxd migrate": other servers may be working on it.
func makeFirstSchema(ctx context.Context, url string) (err error) {
	db, err := primary.DB(url)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	version, err := migrations.PostgresVersion(ctx, db)
	if err != nil {
		return fmt.Errorf("reach Postgres: %w", err)
	}
	if version > 0 {
		return nil
	}
	_, err = migrations.Postgres(ctx, db)
	return err
}

// errAway is a service that cannot be reached, or is not up yet. One that answers
// and refuses is something to mend.
var errAway = errors.New("it is away")

// askRedis tells whether Redis is there.
func askRedis(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := client.Ping(ctx).Err()
	if err == nil {
		return nil
	}
	if _, refused := errors.AsType[redis.Error](err); refused && !redis.HasErrorPrefix(err, "LOADING") {
		return fmt.Errorf("reach Redis: %w", err)
	}
	return fmt.Errorf("reach Redis: %w: %w", errAway, err)
}

// awaitRedis waits until Redis is there, in whatever order things are started.
func (p *process) awaitRedis(ctx context.Context, client *redis.Client) error {
	return p.waitFor(ctx, func(ctx context.Context) error {
		told := time.Time{}
		for {
			err := askRedis(ctx, client)
			if !errors.Is(err, errAway) {
				return err
			}
			if time.Since(told) > 10*time.Second {
				p.log.Warn("waiting for Redis", "error", err)
				told = time.Now()
			}
			if !pause(ctx, 250*time.Millisecond) {
				return err
			}
		}
	})
}

// openRedis is the part of a cluster that a forwarder has too: read models,
// feed and presence. What it gives with errAway is of use when Redis comes.
func (p *process) openRedis(ctx context.Context) (*backend, error) {
	options, err := redis.ParseURL(p.cfg.Redis)
	if err != nil {
		return nil, usageError{fmt.Errorf("--redis: %w", err)}
	}
	options.ContextTimeoutEnabled = true // or a Redis that swallows what it is asked holds callers for longer than they wait
	redis.SetLogger(redisLog{p.log.With("part", "redis")})
	client := redis.NewClient(options)
	p.atEnd("redis", func(context.Context) error { return client.Close() })
	if err = askRedis(ctx, client); err != nil && !errors.Is(err, errAway) {
		return nil, err
	}
	feed := brokerredis.Options{Metrics: broker.NewMetrics(p.registry)}
	rows := projectionsredis.New(client)
	p.atEnd("read models", func(context.Context) error { return rows.Close() })
	return &backend{
		redis:     client,
		rows:      rows,
		publisher: brokerredis.NewPublisher(client, feed),
		follower:  brokerredis.NewFollower(options, feed, p.log.With("part", "feed")),
		directory: directoryredis.New(client, nil),
	}, err
}

// needs are what the API does without when it must: lists and who is where come
// from Redis, commands and single reads from the log.
func (b *backend) needs() map[string]func(context.Context) error {
	if b.redis == nil {
		return nil
	}
	return map[string]func(context.Context) error{"redis": newCheck(b.takesWrites).run}
}

// redisLog keeps the library's own lines, one for each failed attempt, out of
// the log: who called it says what it could not do.
type redisLog struct{ log *slog.Logger }

func (r redisLog) Printf(ctx context.Context, format string, v ...any) {
	r.log.DebugContext(ctx, fmt.Sprintf(format, v...))
}
