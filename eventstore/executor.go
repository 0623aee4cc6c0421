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
	maxBatch      = 128              // commands decided and appended at a time
	maxBatchBytes = 4 << 20          // of event data; a larger command goes alone
	maxConflicts  = 20               // how often a command is decided again because its streams moved
	appendLimit   = 10 * time.Second // for one append; the stores' own limits are shorter
	streamPage    = 1000             // records read at a time
)

// ExecutorOptions tune an executor; the zero value is good.
type ExecutorOptions struct {
	// CacheStreams is how many folded event streams are kept; 0 is 65,536.
	CacheStreams int
	Metrics      *Metrics
}

// Executor turns commands into records: it reads, decides, appends.
//
// Callers bring the event streams a command reads into a cache. One goroutine,
// the decider, takes all commands that wait, decides them one after the other,
// each on what the ones before it come to, and appends them as one batch. So a
// flush is shared by all who waited for it, without anybody waiting longer to
// find company, and commands on one stream do not refuse each other.
//
// The cache is allowed to be old, because the append checks every version. What
// is not appended is not checked, so a refusal, or the finding that there is
// nothing to do, counts only when decided on streams that were read again after
// the command came in.
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

// task is a submission on its way through the decider. Its caller owns it until
// it is queued and again when it was answered.
type task struct {
	ctx     context.Context
	sub     domain.Submission
	streams []domain.StreamID                  // what it reads; grows by NeedStreams
	carried map[domain.StreamID]folded         // what the caller read for it
	least   map[domain.StreamID]domain.Version // versions its streams are known to have reached
	fresh   bool                               // least was read after the command came in
	answer  chan answer
}

// answer is what the decider says: a receipt or an error, or what is to be done
// before it can say either.
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
	stepCheck          // the refusal or no-change may be due to an old cache
	stepConflict       // a stream moved
	stepDuplicate      // the key was used before
	stepHead           // nothing to do: the receipt lacks a position
)

// KeyUsed tells whether an idempotency key was used. A submission under such a key
// is answered from the log or refused, and never decided.
func (e *Executor) KeyUsed(ctx context.Context, scope, key string) (bool, error) {
	_, used, err := e.store.KeyUse(ctx, scope, key)
	if err != nil {
		return false, outward(ctx, err)
	}
	return used, nil
}

// NextID draws an id and remembers that its event stream is new, so that the
// command which uses it needs not look.
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

// expectNew is a guess like everything in the cache: the append checks it.
func (e *Executor) expectNew(id domain.StreamID) {
	e.cache.put(id, folded{state: domain.NewAggregate(id)})
}

// Submit decides a command and appends what it comes to. An error is a
// *[domain.Error] or the context's. After the context's error and after
// [domain.CodeStoreUnavailable] the command may or may not have been executed;
// a retry with the same Key finds out.
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
			// Refused, perhaps, because its own first attempt was executed.
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
					Message: "Too many others change the same thing at once. Nothing was written; try again."}
			}
			err = e.refresh(ctx, t)
		}
		if err != nil {
			return domain.Receipt{}, outward(ctx, err)
		}
	}
}

// ask hands the task to the decider and waits for the answer.
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
		// It may have been answered at the last moment.
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
		e.outdo(t, id, f)
	}
	return nil
}

// outdo makes room for what was read from the log where more is remembered than the
// log has: the log was taken back.
func (e *Executor) outdo(t *task, id domain.StreamID, f folded) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known, ok := e.cache.get(id); ok && known.version > f.version {
		e.cache.drop(id)
	}
	t.least[id] = min(t.least[id], f.version)
}

// Forget forgets all folded event streams: the log was taken back, so that what was
// folded may be in no log.
func (e *Executor) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cache = newCache(e.cache.limit)
}

// fold reads a whole event stream.
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

// refresh brings every stream of the task up to what the log has now.
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
		// With the last record that is known: a log that was taken back lacks it.
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
	e.outdo(t, id, f)
	return f.version, nil
}

// Run is the decider. It returns when ctx ends, after the append it is at.
func (e *Executor) Run(ctx context.Context) error {
	defer close(e.stopped)
	var again []*task // to be decided once more, before any that came later
	for {
		tasks, ok := e.collect(ctx, again)
		if !ok {
			return nil
		}
		again = e.round(ctx, tasks)
	}
}

// collect waits for a task and takes all that wait with it.
func (e *Executor) collect(ctx context.Context, tasks []*task) ([]*task, bool) {
	if len(tasks) == 0 {
		select {
		case <-ctx.Done():
			return nil, false
		case t := <-e.queue:
			tasks = append(tasks, t)
		}
	}
	// Callers who just got their answers are about to ask again. Letting them run
	// first costs nothing when there are none, and saves the first of them from
	// going to disk alone while the others wait for the next flush.
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

// round decides the tasks, appends what they come to, and answers. It gives back
// those that must be decided again.
func (e *Executor) round(ctx context.Context, tasks []*task) (again []*task) {
	r := e.decide(tasks)
	again = r.left
	if len(r.appends) > 0 {
		// The append outlives the end of ctx: what was begun is finished, so that
		// its callers learn what became of it.
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
	if r.cache == e.cache { // else it was decided on what was forgotten since
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
