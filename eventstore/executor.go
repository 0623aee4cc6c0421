package eventstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	maxBatch      = 128              // most commands that are decided and appended together
	maxBatchBytes = 4 << 20          // of event data; a larger command is appended alone
	maxConflicts  = 20               // how often a command is decided again because its streams changed
	appendLimit   = 10 * time.Second // for one append; the stores' own limits are shorter
	streamPage    = 1000             // records read at a time
)

// ExecutorOptions tune an executor; the zero value has good defaults.
type ExecutorOptions struct {
	// CacheStreams is how many folded event streams are cached; 0 means 65,536.
	CacheStreams int
	Metrics      *Metrics
}

// Executor turns commands into records: it reads, decides, appends.
//
// Callers load the event streams that a command reads into a cache. One goroutine, the
// decider, collects all waiting commands. It decides them one after the other, each on
// the result of those before it, and appends them as one batch. So all waiting commands
// share one flush, no command waits for others to arrive, and commands on one stream do
// not conflict with each other.
//
// The cache may be old, because the append checks every version. If nothing is
// appended, nothing is checked. So a refusal, and the finding that there is nothing to
// do, count only when they were decided on streams that were read after the command
// arrived.
type Executor struct {
	store   Store
	metrics *Metrics
	queue   chan *task
	stopped chan struct{} // closed when Run has returned

	mu    sync.Mutex
	cache *cache // guarded by mu
}

// NewExecutor makes an executor; it works while Run runs.
func NewExecutor(store Store, options ExecutorOptions) *Executor {
	if options.CacheStreams <= 0 {
		options.CacheStreams = 1 << 16
	}
	return &Executor{
		store: store, metrics: options.Metrics, cache: newCache(options.CacheStreams),
		queue: make(chan *task, maxBatch), stopped: make(chan struct{}),
	}
}

// task is a submission on its way through the decider. The caller owns it until it is
// queued, and again after the answer.
type task struct {
	ctx     context.Context
	sub     domain.Submission
	streams []domain.StreamID                  // what the command reads; grows by NeedStreams
	carried map[domain.StreamID]folded         // what the caller read for the command
	least   map[domain.StreamID]domain.Version // versions that its streams have reached at least
	fresh   bool                               // least was read after the command arrived
	answer  chan answer
}

// answer is the decider's answer: a receipt or an error, or the next step before there
// can be either.
type answer struct {
	next    step
	load    []domain.StreamID // for stepLoad
	use     KeyUse            // for stepDuplicate
	receipt domain.Receipt
	err     error
}

type step int

const (
	stepDone      step = iota
	stepLoad           // read more streams, submit again
	stepCheck          // the refusal or the no-change may come from an old cache
	stepConflict       // a stream has changed
	stepDuplicate      // the key was used before
	stepHead           // nothing to do: the receipt needs a position
)

// KeyUsed reports whether an idempotency key was used. A submission with a used key is
// answered from the log or refused, and never decided.
func (e *Executor) KeyUsed(ctx context.Context, scope, key string) (bool, error) {
	_, used, err := e.store.KeyUse(ctx, scope, key)
	if err != nil {
		return false, outward(ctx, err)
	}
	return used, nil
}

// NextID draws an id and remembers that its event stream is new, so that the command
// with this id need not read the stream.
func (e *Executor) NextID(ctx context.Context, sequence domain.Sequence) (int64, error) {
	id, err := e.store.NextID(ctx, sequence)
	if err != nil {
		return 0, outward(ctx, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch sequence {
	case domain.SequenceUser:
		e.expectNew(domain.UserStream(id))
		e.expectNew(domain.QuotaStream(id))
	case domain.SequenceClient:
		e.expectNew(domain.ClientStream(id))
	case domain.SequenceMapping:
		e.expectNew(domain.MappingStream(id))
	}
	return id, nil
}

// expectNew assumes that the stream is new. Like everything in the cache this is
// checked by the append.
func (e *Executor) expectNew(id domain.StreamID) {
	e.cache.put(id, folded{state: domain.NewAggregate(id)})
}

// Submit decides a command and appends the result. An error is a *[domain.Error] or the
// context's error. After the context's error and after [domain.CodeStoreUnavailable]
// the command may or may not have been executed; a retry with the same Key tells.
func (e *Executor) Submit(ctx context.Context, sub domain.Submission) (domain.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return domain.Receipt{}, err
	}
	t := &task{ctx: ctx, sub: sub, streams: sub.Command.Reads(), answer: make(chan answer, 1),
		carried: map[domain.StreamID]folded{}, least: map[domain.StreamID]domain.Version{}}
	if err := e.load(ctx, t, t.streams); err != nil {
		return domain.Receipt{}, outward(ctx, err)
	}
	for conflicts := 0; ; {
		a, err := e.ask(ctx, t)
		if err != nil {
			return domain.Receipt{}, err
		}
		switch a.next {
		case stepDone:
			return a.receipt, a.err
		case stepDuplicate:
			r, err := e.recall(ctx, sub, a.use)
			return r, outward(ctx, err)
		case stepHead:
			head, err := e.store.Head(ctx)
			a.receipt.Position = head.Position
			return a.receipt, outward(ctx, err)
		case stepLoad:
			err = e.load(ctx, t, a.load)
		case stepCheck:
			// The refusal may have come because the first attempt of this command was
			// executed.
			use, used, kerr := e.usedBefore(ctx, sub)
			if used {
				r, err := e.recall(ctx, sub, use)
				return r, outward(ctx, err)
			}
			err = errors.Join(kerr, e.refresh(ctx, t))
		case stepConflict:
			e.metrics.conflict()
			if conflicts++; conflicts == maxConflicts {
				return domain.Receipt{}, &domain.Error{Code: domain.CodeStoreUnavailable,
					Message: "Too many others are changing the same thing now. Nothing was written; try again."}
			}
			err = e.refresh(ctx, t)
		}
		if err != nil {
			return domain.Receipt{}, outward(ctx, err)
		}
	}
}

// ask gives the task to the decider and waits for the answer.
func (e *Executor) ask(ctx context.Context, t *task) (answer, error) {
	select {
	case e.queue <- t:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-e.stopped:
		return answer{}, errStopped()
	}
	select {
	case a := <-t.answer:
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-e.stopped:
		// The task may have been answered at the last moment.
		select {
		case a := <-t.answer:
			return a, nil
		default:
			return answer{}, errStopped()
		}
	}
}

func errStopped() error {
	return &domain.Error{Code: domain.CodeStoreUnavailable, Message: "The server is shutting down. Nothing was written."}
}

// load reads streams that are not in the cache.
func (e *Executor) load(ctx context.Context, t *task, streams []domain.StreamID) error {
	for _, id := range streams {
		e.mu.Lock()
		f, cached := e.cache.get(id)
		e.mu.Unlock()
		if cached && f.version >= t.least[id] {
			continue
		}
		f, err := e.fold(ctx, id)
		if err != nil {
			return err
		}
		t.carried[id] = f
		e.dropNewer(t, id, f)
	}
	return nil
}

// dropNewer drops a cached state that is newer than the log. This happens when the log
// was rolled back.
func (e *Executor) dropNewer(t *task, id domain.StreamID, f folded) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known, ok := e.cache.get(id); ok && known.version > f.version {
		e.cache.drop(id)
	}
	t.least[id] = min(t.least[id], f.version)
}

// Forget drops all folded event streams. After a rollback of the log they may be in no
// log.
func (e *Executor) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cache = newCache(e.cache.limit)
}

// fold reads a whole event stream and folds it.
func (e *Executor) fold(ctx context.Context, id domain.StreamID) (folded, error) {
	f := folded{state: domain.NewAggregate(id)}
	if f.state == nil {
		return f, fmt.Errorf("event stream %q: unknown category", id)
	}
	for {
		records, err := e.store.ReadStream(ctx, id, f.version, streamPage)
		if err != nil {
			return f, err
		}
		if err := domain.Fold(f.state, records); err != nil {
			return f, fmt.Errorf("fold event stream %s: %w", id, err)
		}
		f.version += domain.Version(len(records))
		if len(records) < streamPage {
			return f, nil
		}
	}
}

// refresh brings every stream of the task to the present version in the log.
func (e *Executor) refresh(ctx context.Context, t *task) error {
	for _, id := range t.streams {
		version, err := e.catchUp(ctx, t, id)
		if err != nil {
			return err
		}
		t.least[id] = max(t.least[id], version)
	}
	t.fresh = true
	return nil
}

func (e *Executor) catchUp(ctx context.Context, t *task, id domain.StreamID) (domain.Version, error) {
	e.mu.Lock()
	f, cached := e.cache.get(id)
	e.mu.Unlock()
	if cached {
		// Read from the last known record on: a log that was rolled back lacks this
		// record.
		records, err := e.store.ReadStream(ctx, id, max(f.version-1, 0), streamPage)
		if err != nil {
			return 0, err
		}
		there := f.version == 0 || len(records) > 0
		if f.version > 0 && there {
			records = records[1:]
		}
		if there && len(records) == 0 {
			return f.version, nil
		}
		if there && len(records) < streamPage-1 {
			e.mu.Lock()
			done, err := e.cache.advance(id, records)
			e.mu.Unlock()
			if err != nil {
				return 0, fmt.Errorf("fold event stream %s: %w", id, err)
			}
			if done {
				return f.version + domain.Version(len(records)), nil
			}
		}
	}
	f, err := e.fold(ctx, id)
	if err != nil {
		return 0, err
	}
	t.carried[id] = f
	e.dropNewer(t, id, f)
	return f.version, nil
}

// Run is the decider. When ctx ends, it returns after the append that is under way.
func (e *Executor) Run(ctx context.Context) error {
	defer close(e.stopped)
	var again []*task // to be decided again, before tasks that arrived later
	for {
		tasks, ok := e.collect(ctx, again)
		if !ok {
			return nil
		}
		again = e.round(ctx, tasks)
	}
}

// collect waits for a task and collects all waiting tasks with it.
func (e *Executor) collect(ctx context.Context, tasks []*task) ([]*task, bool) {
	if len(tasks) == 0 {
		select {
		case <-ctx.Done():
			return nil, false
		case t := <-e.queue:
			tasks = append(tasks, t)
		}
	}
	// Callers that just got their answers are about to submit again. Letting them run
	// first costs nothing when there are none. Otherwise the first of them would be
	// flushed alone, and the others would wait for the next flush.
	for range 2 {
		runtime.Gosched()
		for len(tasks) < maxBatch {
			select {
			case t := <-e.queue:
				tasks = append(tasks, t)
				continue
			default:
			}
			break
		}
	}
	return tasks, ctx.Err() == nil
}

// round decides the tasks, appends the results, and answers. It returns the tasks that
// must be decided again.
func (e *Executor) round(ctx context.Context, tasks []*task) (again []*task) {
	r := e.decide(tasks)
	again = r.left
	if len(r.appends) > 0 {
		// The append continues after the end of ctx, so that its callers learn the
		// outcome.
		actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendLimit)
		defer cancel()
		start := time.Now()
		results, err := e.store.AppendBatch(actx, r.appends)
		e.metrics.appended(len(r.appends), time.Since(start))
		if err != nil {
			r.fail(unavailable(err))
			return again
		}
		r.results = results
	}
	e.mu.Lock()
	if r.cache == e.cache { // otherwise the states were decided on a cache that was dropped since
		r.promote(e.cache)
	}
	e.cache.trim()
	e.mu.Unlock()
	return append(r.settle(), again...)
}

func (e *Executor) decide(tasks []*task) *round {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &round{cache: e.cache, planned: map[domain.StreamID]*plannedStream{}}
	for i, t := range tasks {
		if t.ctx.Err() != nil {
			continue // nobody waits for the answer
		}
		if r.bytes > maxBatchBytes {
			r.left = tasks[i:]
			break
		}
		r.decide(t)
	}
	return r
}
