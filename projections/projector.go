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
	// batchSize is how many records a batch has at most. A batch is one script on
	// Redis, during which Redis serves nobody else: 500 records took 8 ms.
	batchSize = 250
	// idleCheck is how often a projector that waits looks whether the store was
	// flushed and the log still has its checkpoint: both happen in silence.
	idleCheck = time.Second
	// retryFirst and retryMost bound the pause after a failure; it doubles.
	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
	// contested is how many batches in a row another projector may be first with
	// before this one leaves the work to it for a moment.
	contested = 3
)

// Progress tells how far a build is.
type Progress struct {
	Done    domain.Position // records folded
	Head    domain.Position // end of the log, 0 = not known
	Elapsed time.Duration
}

// Rate gives the records folded per second.
func (p Progress) Rate() float64 { return float64(p.Done) / max(p.Elapsed.Seconds(), 1e-9) }

// Options of a projector. The zero value works.
type Options struct {
	// Head gives the end of the log, for progress and lag; nil = not known.
	Head func(context.Context) (domain.Position, error)
	// Progress is called about every 200 ms during a build, and at its end.
	Progress func(Progress)
	Metrics  *Metrics
	Logger   *slog.Logger
}

// Status is what a projector says of itself.
type Status struct {
	Checkpoint Checkpoint
	Building   bool
	// Halted is why the projector stopped for good: a record it cannot fold. The
	// read models stay readable, as of the record before.
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

// Ready returns once the read models are served and have been at the end of the
// log, with the error that halted the projector, or with the context's.
func (p *Projector) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		return p.Status().Halted
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows the log until ctx ends and then returns nil. Failures of log and
// store are retried. A record that cannot be folded halts the projector: it
// logs an error, shows it in Status and does nothing more, because to skip a
// fact would make every read wrong from there on. It goes on blocking, so that
// what can be read stays readable.
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
			continue // built anew
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

// haltError wraps what no retry can mend.
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

// follow works from the store's checkpoint until something fails. It builds
// anew when there is nothing to go on from.
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
		// With facts, err is about the record behind them.
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
			p.options.Logger.Warn("read models are not of this log, building anew", "position", cp.Position, "event_id", cp.EventID)
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

// torn tells apart rows that another projector moved, which is usual, from rows
// that do not fit their checkpoint, which only a new build mends.
func (p *Projector) torn(ctx context.Context, cp Checkpoint, cause error) error {
	now, err := p.store.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if now != cp {
		return ErrFenced
	}
	p.options.Logger.Error("read models do not fit their checkpoint, building anew", "error", cause, "position", cp.Position)
	_, err = p.rebuild(ctx, true)
	return err
}

// idle waits for more of the log, or until it is time to look around.
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

// next reads the facts behind cp. full says that there may be more at once. With
// facts, the error is about the record behind them.
func (p *Projector) next(ctx context.Context, cp Checkpoint, limit int) (facts []fact, full bool, err error) {
	records, full, err := readBehind(ctx, p.log, cp, limit)
	if err != nil {
		return nil, false, err
	}
	facts, err = decode(cp.Position, records)
	return facts, full, err
}

// readBehind reads the records behind cp, and the one at cp with them: a log that
// does not have it is another log.
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
			continue // given twice
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

// apply folds the facts and writes what they come to.
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

// at notes where the store is.
func (p *Projector) at(cp Checkpoint) {
	p.update(func(s *Status) { s.Checkpoint, s.Building = cp, false })
	p.options.Metrics.at(cp.Position)
}
