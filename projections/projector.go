package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	// batchSize is the largest number of records in a batch. A batch is one script on
	// Redis, during which Redis serves nobody else: 500 records took 8 ms.
	batchSize = 250
	// idleCheck is how often a waiting projector checks whether the store was flushed
	// and whether the log still has its checkpoint: nothing reports either.
	idleCheck = time.Second
	// retryFirst and retryMost bound the pause after a failure; it doubles.
	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
	// contested is after how many batches in a row, in which another projector was
	// first, this one leaves the work to it for a moment.
	contested = 3
)

// Progress is the progress of a build.
type Progress struct {
	Done    domain.Position // records folded
	Head    domain.Position // end of the log, 0 = not known
	Elapsed time.Duration
}

// Rate gives the records folded per second.
func (p Progress) Rate() float64 { return float64(p.Done) / max(p.Elapsed.Seconds(), 1e-9) }

// Options configure a projector. The zero value works.
type Options struct {
	// Head gives the end of the log, for progress and lag; nil = not known.
	Head func(context.Context) (domain.Position, error)
	// Progress is called about every 200 ms during a build, and at its end.
	Progress func(Progress)
	Metrics  *Metrics
	Logger   *slog.Logger
}

// Status is the state of a projector.
type Status struct {
	Checkpoint Checkpoint
	Building   bool
	// Halted is the reason why the projector stopped for good: a record that it cannot
	// fold. The read models can still be read, as of the record before.
	Halted error
}

// Projector keeps a store's read models at the end of the log. Several may work
// on one store: each batch is written by one of them.
type Projector struct {
	log     Log
	store   Store
	options Options

	ready     chan struct{} // closed once caught up, or halted
	readyOnce sync.Once

	mu     sync.Mutex
	status Status // guarded by mu
}

// NewProjector makes a projector; Run does the work.
func NewProjector(log Log, store Store, o Options) *Projector {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Projector{log: log, store: store, options: o, ready: make(chan struct{})}
}

// Status gives the present state.
func (p *Projector) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Ready returns when the read models can be read and have been at the end of the log.
// It returns the error that halted the projector, or the context's error.
func (p *Projector) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		return p.Status().Halted
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows the log until ctx ends and then returns nil. Failures of log and store
// are retried. A record that cannot be folded halts the projector: it logs an error,
// shows it in Status and does nothing more, because a skipped fact would make every
// later read wrong. It still blocks then, so that the present read models can be read.
func (p *Projector) Run(ctx context.Context) error {
	folder := newFolder(p.store)
	pause := wait.Backoff{First: retryFirst, Most: retryMost}
	fenced := 0
	for {
		progressed, err := p.follow(ctx, folder)
		folder.reset()
		if ctx.Err() != nil {
			return nil
		}
		if progressed {
			pause.Reset()
			fenced = 0
		}
		h, halted := errors.AsType[*haltError](err)
		switch {
		case halted:
			p.halt(h)
			<-ctx.Done()
			return nil
		case err == nil:
			continue // rebuilt
		case errors.Is(err, ErrFenced):
			if fenced++; fenced < contested {
				continue
			}
			fenced = 0
		default:
			p.options.Logger.Warn("projector interrupted, trying again", "error", err)
		}
		if !pause.Wait(ctx) {
			return nil
		}
	}
}

// haltError wraps a fault that no retry can repair.
type haltError struct{ err error }

func (h *haltError) Error() string { return "projections: halted: " + h.err.Error() }

func (h *haltError) Unwrap() error { return h.err }

func (p *Projector) halt(h *haltError) {
	p.update(func(s *Status) { s.Halted, s.Building = h, false })
	p.options.Metrics.halted()
	p.options.Logger.Error("projector halted; the read models stay as they are", "error", h.err)
	p.readyOnce.Do(func() { close(p.ready) })
}

func (p *Projector) update(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
}

// follow works from the store's checkpoint until something fails. If there is no
// checkpoint to continue from, it rebuilds.
func (p *Projector) follow(ctx context.Context, folder *folder) (progressed bool, err error) {
	cp, err := p.store.Checkpoint(ctx)
	if err != nil {
		return false, err
	}
	if cp.Position == 0 {
		if cp, err = p.rebuild(ctx, false); err != nil {
			return false, err
		}
	}
	p.at(cp)
	for {
		facts, full, err := p.next(ctx, cp, batchSize)
		// With facts, err is about the record after them.
		if len(facts) > 0 {
			next, applyErr := p.apply(ctx, folder, p.store, cp, facts)
			if errors.Is(applyErr, errTorn) {
				return progressed, p.torn(ctx, cp, applyErr)
			}
			if applyErr != nil {
				return progressed, applyErr
			}
			cp, progressed = next, true
			p.at(cp)
			p.options.Metrics.lagged(facts)
		}
		if errors.Is(err, ErrForked) {
			p.options.Logger.Warn("read models do not belong to this log, rebuilding them", "position", cp.Position, "event_id", cp.EventID)
			_, err := p.rebuild(ctx, true)
			return err == nil, err
		}
		if err != nil {
			return progressed, err
		}
		if full {
			continue
		}
		p.readyOnce.Do(func() { close(p.ready) })
		if err := p.idle(ctx, cp); err != nil {
			return progressed, err
		}
	}
}

// torn tells two cases apart. Usually another projector has changed the rows. If the
// rows do not match their checkpoint, only a rebuild repairs them.
func (p *Projector) torn(ctx context.Context, cp Checkpoint, cause error) error {
	now, err := p.store.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if now != cp {
		return ErrFenced
	}
	p.options.Logger.Error("read models do not match their checkpoint, rebuilding them", "error", cause, "position", cp.Position)
	_, err = p.rebuild(ctx, true)
	return err
}

// idle waits for further records, or until the next check.
func (p *Projector) idle(ctx context.Context, cp Checkpoint) error {
	bounded, cancel := context.WithTimeout(ctx, idleCheck)
	defer cancel()
	err := p.log.Wait(bounded, cp.Position)
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	now, err := p.store.Checkpoint(ctx)
	if err == nil && now != cp {
		return ErrFenced
	}
	return err
}

// next reads the facts after cp. full says that there may be more at once. With facts,
// the error is about the record after them.
func (p *Projector) next(ctx context.Context, cp Checkpoint, limit int) (facts []fact, full bool, err error) {
	records, full, err := readBehind(ctx, p.log, cp, limit)
	if err != nil {
		return nil, false, err
	}
	facts, err = decode(cp.Position, records)
	return facts, full, err
}

// readBehind reads the records after cp together with the record at cp: a log without
// that record is another log.
func readBehind(ctx context.Context, log Log, cp Checkpoint, limit int) (records []domain.Record, full bool, err error) {
	after, overlap := cp.Position, 0
	if cp.Position > 0 {
		after, overlap = cp.Position-1, 1
	}
	records, err = log.ReadAll(ctx, after, limit+overlap)
	if err != nil {
		return nil, false, fmt.Errorf("read the log after %d: %w", after, err)
	}
	if overlap == 1 && (len(records) == 0 || records[0].Position != cp.Position || records[0].ID != cp.EventID) {
		return nil, false, ErrForked
	}
	return records[overlap:], len(records) == limit+overlap, nil
}

// decode decodes records that must follow after without holes.
func decode(after domain.Position, records []domain.Record) ([]fact, error) {
	facts := make([]fact, 0, len(records))
	for i := range records {
		r := &records[i]
		if r.Position <= after {
			continue // delivered twice
		}
		if r.Position != after+1 {
			return facts, fmt.Errorf("the log goes from position %d to %d", after, r.Position)
		}
		event, err := r.Event()
		if err != nil {
			return facts, &haltError{fmt.Errorf("record %d of %s: %w", r.Position, r.Stream, err)}
		}
		facts = append(facts, fact{record: r, key: keyOf(r.Stream), event: event})
		after = r.Position
	}
	return facts, nil
}

// apply folds the facts and writes the result.
func (p *Projector) apply(ctx context.Context, folder *folder, to Rows, cp Checkpoint, facts []fact) (Checkpoint, error) {
	batch, err := folder.fold(ctx, cp, facts)
	if err != nil {
		return cp, err
	}
	start := time.Now()
	if err := to.Apply(ctx, batch); err != nil {
		return cp, fmt.Errorf("write read models at %d: %w", batch.To.Position, err)
	}
	p.options.Metrics.applied(len(facts), time.Since(start))
	return batch.To, nil
}

// at stores the present checkpoint of the store.
func (p *Projector) at(cp Checkpoint) {
	p.update(func(s *Status) { s.Checkpoint, s.Building = cp, false })
	p.options.Metrics.at(cp.Position)
}
