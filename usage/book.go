package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// pruneEvery is the time between two runs of [Store.Prune].
const pruneEvery = 10 * time.Minute

// Book is a store with a clock. In a control plane, forwarders' reports arrive here.
type Book struct {
	Store
	now func() time.Time
	log *slog.Logger
}

// NewBook makes a book. With now nil it uses time.Now; with log nil it logs nothing.
func NewBook(store Store, now func() time.Time, log *slog.Logger) *Book {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Book{Store: store, now: now, log: log}
}

// Report counts a report at the present time.
func (b *Book) Report(ctx context.Context, r Report) (Answer, error) {
	if err := r.Check(); err != nil {
		return Answer{}, err
	}
	return b.Count(ctx, b.now(), r)
}

// Run deletes old data at intervals until ctx ends. It only logs an attempt that fails:
// the next attempt deletes the same data.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := b.Prune(ctx, b.now()); err != nil && !errors.Is(err, context.Canceled) {
			b.log.Warn("deleting old usage", "error", fmt.Errorf("prune usage: %w", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
