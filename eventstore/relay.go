package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	relayPage      = 500                   // records published at a time
	relayBackoff   = 50 * time.Millisecond // after the first failure; doubles
	relayPatience  = 5 * time.Second       // the longest pause between attempts
	heartbeatEvery = 2 * time.Second       // without records
)

// Log is what the relay reads; a [Store] is one.
type Log interface {
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	Head(ctx context.Context) (Checkpoint, error)
	Wait(ctx context.Context, after domain.Position) error
}

// Publisher is what the relay writes to: the publishing side of a feed.
type Publisher interface {
	// Last gives the position of the newest entry; ok is false when the feed is empty.
	Last(ctx context.Context) (position domain.Position, ok bool, err error)
	// Publish appends records, which follow prev. What is on the feed already is
	// left as it is.
	Publish(ctx context.Context, prev domain.Position, records []domain.Record) error
	// Heartbeat publishes that the feed is at position and that somebody lives.
	Heartbeat(ctx context.Context, position domain.Position) error
	// Reset empties the feed.
	Reset(ctx context.Context) error
}

// RelayOptions tune a relay; the zero value is good.
type RelayOptions struct {
	// Start gives the position to begin behind when the feed is empty, usually the
	// checkpoint of the read models from which followers take their snapshot; nil
	// begins at the end of the log. Followers that are behind it find a gap and
	// take a new snapshot.
	Start   func(ctx context.Context) (domain.Position, error)
	Metrics *Metrics
	Logger  *slog.Logger
}

// Relay carries what was appended to the configuration feed.
//
// It keeps nothing: where to go on is asked of the feed itself, so a crash
// between append and publish, a flushed feed and a second relay beside this one
// are all the same case. Every record of the log is published, in order; one
// that cannot be published is tried again until it can.
type Relay struct {
	log       Log
	publisher Publisher
	options   RelayOptions
}

// NewRelay makes a relay; it works while Run runs.
func NewRelay(log Log, publisher Publisher, options RelayOptions) *Relay {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Relay{log: log, publisher: publisher, options: options}
}

// Run carries records until ctx ends, which is no error.
func (r *Relay) Run(ctx context.Context) error {
	pause := wait.Backoff{First: relayBackoff, Most: relayPatience}
	for {
		moved, err := r.carry(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if moved {
			pause.Reset()
		}
		r.options.Metrics.failed()
		if pause.Tries() == 0 { // once a failure, not once an attempt
			r.options.Logger.Warn("cannot carry records to the feed, trying again", "error", err)
		}
		if !pause.Wait(ctx) {
			return nil
		}
	}
}

// carry finds out where the feed is and publishes from there until something
// fails. moved says that it had published before.
func (r *Relay) carry(ctx context.Context) (moved bool, err error) {
	at, err := r.begin(ctx)
	if err != nil {
		return false, err
	}
	if err := r.publisher.Heartbeat(ctx, at); err != nil {
		return false, fmt.Errorf("heartbeat: %w", err)
	}
	for {
		records, err := r.log.ReadAll(ctx, at, relayPage)
		if err != nil {
			return moved, fmt.Errorf("read the log: %w", err)
		}
		if len(records) > 0 {
			if err := r.publisher.Publish(ctx, at, records); err != nil {
				return moved, fmt.Errorf("publish: %w", err)
			}
			at, moved = records[len(records)-1].Position, true
			r.options.Metrics.published(at, records)
			continue
		}
		lost, err := r.idle(ctx, at)
		if err != nil {
			return moved, err
		}
		moved = true
		if lost {
			return r.carry(ctx)
		}
	}
}

// begin gives the position behind which to go on.
func (r *Relay) begin(ctx context.Context) (domain.Position, error) {
	last, ok, err := r.publisher.Last(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the feed for its end: %w", err)
	}
	// The feed first: what is on it was in the log before.
	head, err := r.log.Head(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the head of the log: %w", err)
	}
	if ok && last > head.Position {
		// The log was restored to an older state. Published on, other records would
		// hide under positions that are on the feed already.
		r.options.Logger.Error("the feed is ahead of the log, emptying it", "feed", last, "log", head.Position)
		if err := r.publisher.Reset(ctx); err != nil {
			return 0, fmt.Errorf("reset the feed: %w", err)
		}
		ok = false
	}
	switch {
	case ok:
	case r.options.Start != nil:
		if last, err = r.options.Start(ctx); err != nil {
			return 0, fmt.Errorf("find where to start the feed: %w", err)
		}
		last = min(last, head.Position)
	default:
		last = head.Position
	}
	r.options.Metrics.published(last, nil)
	return last, nil
}

// idle waits for the next record, with a heartbeat when it takes long. lost says
// that the feed was emptied meanwhile.
func (r *Relay) idle(ctx context.Context, at domain.Position) (lost bool, err error) {
	for {
		wctx, cancel := context.WithTimeout(ctx, heartbeatEvery)
		err := r.log.Wait(wctx, at)
		cancel()
		if err == nil {
			return false, nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return false, fmt.Errorf("wait for records: %w", err)
		}
		if _, ok, err := r.publisher.Last(ctx); err != nil {
			return false, fmt.Errorf("ask the feed for its end: %w", err)
		} else if !ok {
			return true, nil
		}
		if err := r.publisher.Heartbeat(ctx, at); err != nil {
			return false, fmt.Errorf("heartbeat: %w", err)
		}
	}
}
