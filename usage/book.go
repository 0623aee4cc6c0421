package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// pruneEvery is how often a book deletes what is kept no longer.
const pruneEvery = 10 * time.Minute

// Book is a store with a clock: where reports arrive in a control plane.
type Book struct {
	Store
	now func() time.Time
	log *slog.Logger
}

// NewBook makes a book; now nil is time.Now, log nil logs nothing.
func NewBook(store Store, now func() time.Time, log *slog.Logger) *Book {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Book{Store: store, now: now, log: log}
}

// Report counts a report now.
func (b *Book) Report(ctx context.Context, r Report) (Answer, error) {
	if err := r.Check(); err != nil {
		return Answer{}, err
	}
	return b.Count(ctx, b.now(), r)
}

// Run keeps the tables small until ctx ends. That one attempt fails is logged:
// the next has the same to delete.
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
