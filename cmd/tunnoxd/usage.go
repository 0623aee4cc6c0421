package main

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/postgres"
	"github.com/tunnox-net/tunnox/usage/sqlite"
)

// Bounds of --usage-interval: with less, reports cost more than they are worth; with
// more, a forwarder would count as gone between two reports.
const (
	shortestReport = 50 * time.Millisecond
	longestReport  = usage.Fresh / 3
)

// startUsage opens the counters, which are in the same database as the log. It is
// called after the log was opened, because the log's opener makes the schema; so the
// counters are closed before the log.
func (p *process) startUsage(ctx context.Context) (*usage.Book, error) {
	var store usage.Store
	var err error
	if p.cfg.Postgres != "" {
		store, err = postgres.Open(ctx, p.cfg.Postgres)
	} else {
		store, err = sqlite.Open(ctx, p.dir.file(logFile))
	}
	if err != nil {
		return nil, err
	}
	p.atEnd("usage", func(context.Context) error { return store.Close() })
	book := usage.NewBook(store, nil, p.log.With("part", "usage"))
	p.run("usage", book.Run)
	return book, nil
}

// reports sends a forwarder's reports of usage to the control plane.
type reports struct{ client *control.Client }

// Report implements forwarder.Ledger.
func (r reports) Report(ctx context.Context, report usage.Report) (usage.Answer, error) {
	return r.client.ReportUsage(ctx, report)
}
