package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/migrations"
	"github.com/tunnox-net/tunnox/primary"
)

// openCluster uses Postgres and Redis, which other processes use at the same time.
func (p *process) openCluster(ctx context.Context) (*backend, error) {
	b := &backend{}
	if err := makeFirstSchema(ctx, p.cfg.Postgres); err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, p.cfg.Postgres, postgres.Options{})
	if errors.Is(err, eventstore.ErrSchema) {
		return nil, fmt.Errorf("%w\n  if the schema is older: make a backup, stop the other servers, and run tunnoxd migrate --postgres URL", err)
	}
	if err != nil {
		return nil, err
	}
	p.atEnd("event store", func(context.Context) error { return store.Close() })
	b.raw, b.store, b.watched = store, eventstore.NewPersonal(store), store
	if b.shared, err = p.openShared(ctx); err != nil {
		return nil, err
	}
	if b.key, err = p.clusterKey(ctx, b.shared); err != nil {
		return nil, err
	}
	if b.record, err = p.recordKey(ctx, b.shared, b.key); err != nil {
		return nil, err
	}
	b.between, err = p.openRedis(ctx, func(*redis.Client) attest.Trust { return b.record.Trust() })
	switch {
	case errors.Is(err, errAway):
		b.away = true
		p.log.Warn("starting without Redis: commands are accepted and single resources are read from the log; lists, forwarders and agents work when Redis is there", "error", err)
	case err != nil:
		return nil, err
	}
	p.tellAppends(store, b.bell)
	return b, p.showSigner(ctx, b)
}

// makeFirstSchema makes the schema of an empty database. It leaves an older schema to
// "tunnoxd migrate", because other servers may be using it.
func makeFirstSchema(ctx context.Context, url string) (err error) {
	db, err := primary.DB(url)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	version, err := migrations.PostgresVersion(ctx, db)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	if version > 0 {
		return nil
	}
	_, err = migrations.Postgres(ctx, db)
	return err
}
