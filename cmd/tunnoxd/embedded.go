package main

import (
	"context"

	"github.com/tunnox-net/tunnox/broker"
	brokermemory "github.com/tunnox-net/tunnox/broker/memory"
	directorymemory "github.com/tunnox-net/tunnox/directory/memory"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/projections/memory"
)

// logFile is the embedded log in the data directory.
const logFile = "tunnox.db"

// openEmbedded needs only the data directory: the log in SQLite, everything else in
// memory. It migrates the schema itself, because no other process may use the file.
func (p *process) openEmbedded(ctx context.Context) (*backend, error) {
	path := p.dir.file(logFile)
	steps, err := sqlite.Migrate(ctx, path)
	if err != nil {
		return nil, err
	}
	if steps > 0 && !p.dir.fresh {
		p.log.Info("brought the log's schema up to date", "steps", steps)
	}
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	p.atEnd("event store", func(context.Context) error { return store.Close() })
	feed := brokermemory.New(brokermemory.DefaultCapacity, broker.NewMetrics(p.registry))
	p.atEnd("feed", func(context.Context) error { return feed.Close() })
	presences := directorymemory.New(nil)
	p.keepLastSeen(presences)
	return &backend{raw: store, store: eventstore.NewPersonal(store),
		between: between{publisher: feed, follower: feed, rows: memory.New(), directory: presences}}, nil
}
