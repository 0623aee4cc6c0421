package eventstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	relayPage      = 500                   // records published together
	relayBackoff   = 50 * time.Millisecond // after the first failure; it doubles
	relayPatience  = 5 * time.Second       // the longest pause between attempts
	heartbeatEvery = 2 * time.Second       // when there are no records
)

// Log is what the relay reads; a [Store] is one.
type Log interface {
	ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error)
	Head(ctx context.Context) (Checkpoint, error)
	Wait(ctx context.Context, after domain.Position) error
}

// Publisher is the publishing side of a feed, to which the relay writes.
type Publisher interface {
	// Last gives the place of the newest entry and the feed's epoch; ok is false when
	// the feed is empty.
	Last(ctx context.Context) (end domain.Place, epoch string, ok bool, err error)
	// Publish appends records, which follow prev. Records that are on the feed already
	// are left as they are.
	Publish(ctx context.Context, prev domain.Place, records []domain.Record) error
	// Heartbeat publishes the feed's present place, which also shows that a relay
	// lives.
	Heartbeat(ctx context.Context, at domain.Place) error
	// Name gives an epoch to a feed that has none.
	Name(ctx context.Context, epoch string) error
	// Reset empties the feed and begins an epoch. Followers of another epoch drop what
	// they knew.
	Reset(ctx context.Context, epoch string) error
}

// RelayOptions tune a relay; the zero value has good defaults.
type RelayOptions struct {
	// Start gives the position after which to begin when the feed is empty. Usually it
	// is the checkpoint of the read models from which followers take their snapshot;
	// nil begins at the end of the log. Followers before this position find a gap and
	// take a new snapshot.
	Start func(ctx context.Context) (domain.Position, error)
	// Settle waits until the source of followers' snapshots shows this log again; nil =
	// do not wait. It is called when the log was rolled back. Followers are told only
	// after that: a snapshot of the lost log would be beyond the end of this log, and
	// they would wait for records after it.
	Settle  func(ctx context.Context) error
	Metrics *Metrics
	Logger  *slog.Logger
}

// Relay carries appended records to the configuration feed.
//
// It stores nothing. It asks the feed itself where to continue, so a crash between
// append and publish, a flushed feed and a second relay beside this one are all the
// same case. With each page it reads the record before the page, so it notices when the
// log was rolled back, by a restore or a failover to a standby that lagged. A rollback
// begins a new epoch of the feed. Every record of the log is published, in order; a
// record that cannot be published is tried again until it can.
type Relay struct {
	log       Log
	publisher Publisher
	options   RelayOptions
	epoch     string // of the feed, as this relay knows it
}

// errForked says that the feed has a record that the log does not have.
var errForked = errors.New("the feed contains records that are not in this log")

// NewRelay makes a relay; it works while Run runs.
func NewRelay(log Log, publisher Publisher, options RelayOptions) *Relay {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Relay{log: log, publisher: publisher, options: options}
}

// Run carries records until ctx ends, which is not an error.
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
		if pause.Tries() == 0 { // once for each failure, not for each attempt
			r.options.Logger.Warn("cannot carry records to the feed, trying again", "error", err)
		}
		if !pause.Wait(ctx) {
			return nil
		}
	}
}

// carry finds the end of the feed and publishes from there until something fails. moved
// says that it has published something.
func (r *Relay) carry(ctx context.Context) (moved bool, err error) {
	at, err := r.begin(ctx)
	if err != nil {
		return false, err
	}
	if err := r.publisher.Heartbeat(ctx, at); err != nil {
		return false, fmt.Errorf("heartbeat: %w", err)
	}
	for {
		records, err := r.readAfter(ctx, at, relayPage)
		if errors.Is(err, errForked) {
			if err := r.fork(ctx, at); err != nil {
				return moved, err
			}
			return r.carry(ctx)
		}
		if err != nil {
			return moved, fmt.Errorf("read the log: %w", err)
		}
		if len(records) > 0 {
			if err := r.publisher.Publish(ctx, at, records); err != nil {
				return moved, fmt.Errorf("publish: %w", err)
			}
			at, moved = domain.PlaceOf(records[len(records)-1]), true
			r.options.Metrics.published(at.Position, records)
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

// readAfter reads the records after a place, together with the record at the place,
// which must be unchanged.
func (r *Relay) readAfter(ctx context.Context, at domain.Place, limit int) ([]domain.Record, error) {
	if at.Position == 0 {
		return r.log.ReadAll(ctx, 0, limit)
	}
	records, err := r.log.ReadAll(ctx, at.Position-1, limit+1)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || records[0].Position != at.Position || at.Parted(domain.PlaceOf(records[0])) {
		return nil, errForked
	}
	return records[1:], nil
}

// fork begins the feed again, for a log that was rolled back.
func (r *Relay) fork(ctx context.Context, at domain.Place) error {
	r.options.Metrics.forked(true)
	r.options.Logger.Error("the log was rolled back: published records are not in it any more; every follower begins again",
		"published", at.Position, "event_id", at.EventID)
	if r.options.Settle != nil {
		if err := r.options.Settle(ctx); err != nil {
			return fmt.Errorf("wait for read models of this log: %w", err)
		}
	}
	r.epoch = rand.Text()
	if err := r.publisher.Reset(ctx, r.epoch); err != nil {
		return fmt.Errorf("reset the feed: %w", err)
	}
	r.options.Metrics.forked(false)
	r.options.Logger.Warn("the feed begins again with the present log", "epoch", r.epoch)
	return nil
}

// begin gives the place after which to continue.
func (r *Relay) begin(ctx context.Context) (domain.Place, error) {
	last, epoch, ok, err := r.publisher.Last(ctx)
	if err != nil {
		return domain.Place{}, fmt.Errorf("ask the feed for its end: %w", err)
	}
	if ok {
		// Records on the feed were in the log before.
		switch _, err := r.readAfter(ctx, last, 0); {
		case errors.Is(err, errForked):
			if err := r.fork(ctx, last); err != nil {
				return domain.Place{}, err
			}
			ok, epoch = false, r.epoch
		case err != nil:
			return domain.Place{}, fmt.Errorf("read the log: %w", err)
		}
	}
	if r.epoch = cmp.Or(epoch, r.epoch); epoch == "" {
		if err := r.name(ctx); err != nil {
			return domain.Place{}, err
		}
	}
	if ok {
		return r.known(ctx, last.Position)
	}
	head, err := r.log.Head(ctx)
	if err != nil {
		return domain.Place{}, fmt.Errorf("read the head of the log: %w", err)
	}
	start := head.Position
	if r.options.Start != nil {
		if start, err = r.options.Start(ctx); err != nil {
			return domain.Place{}, fmt.Errorf("find where to start the feed: %w", err)
		}
		start = min(start, head.Position)
	}
	return r.known(ctx, start)
}

// name gives an epoch to a feed that has none: the feed is new, was flushed, or was
// written by an older version. After a flush the epoch is the same as before. Otherwise
// followers would think that the feed belongs to another log.
func (r *Relay) name(ctx context.Context) error {
	if r.epoch == "" {
		first, err := r.log.ReadAll(ctx, 0, 1)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if len(first) == 0 {
			return nil // there is nothing to distinguish yet
		}
		r.epoch = first[0].ID.String()
	}
	if err := r.publisher.Name(ctx, r.epoch); err != nil {
		return fmt.Errorf("name the feed's epoch: %w", err)
	}
	return nil
}

// known gives the place at a position of the log.
func (r *Relay) known(ctx context.Context, p domain.Position) (domain.Place, error) {
	r.options.Metrics.published(p, nil)
	if p == 0 {
		return domain.Place{}, nil
	}
	records, err := r.log.ReadAll(ctx, p-1, 1)
	if err != nil {
		return domain.Place{}, fmt.Errorf("read the log: %w", err)
	}
	if len(records) == 0 || records[0].Position != p {
		return domain.Place{}, fmt.Errorf("read the log: no record at %d", p)
	}
	return domain.PlaceOf(records[0]), nil
}

// idle waits for the next record, and sends a heartbeat when that takes long. lost says
// that the feed was emptied, or that the log must be checked.
func (r *Relay) idle(ctx context.Context, at domain.Place) (lost bool, err error) {
	for {
		wctx, cancel := context.WithTimeout(ctx, heartbeatEvery)
		err := r.log.Wait(wctx, at.Position)
		cancel()
		if err == nil {
			return false, nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return false, fmt.Errorf("wait for records: %w", err)
		}
		// Others may have published, or emptied the feed; begin handles both.
		end, epoch, ok, err := r.publisher.Last(ctx)
		if err != nil {
			return false, fmt.Errorf("ask the feed for its end: %w", err)
		}
		if !ok || epoch != r.epoch || epoch == "" && at.Position > 0 || end.Position != at.Position || end.Parted(at) {
			return true, nil
		}
		if _, err := r.readAfter(ctx, at, 0); errors.Is(err, errForked) {
			return false, nil // the next read finds the same
		} else if err != nil {
			return false, fmt.Errorf("read the log: %w", err)
		}
		if err := r.publisher.Heartbeat(ctx, at); err != nil {
			return false, fmt.Errorf("heartbeat: %w", err)
		}
	}
}
