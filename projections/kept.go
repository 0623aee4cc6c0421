package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// The cache of a reader. A row is the fold of its event stream, so a cached row is
// right as long as no record of that stream has come; a reader that follows the log
// knows which streams have new records. It needs only the event stream of each record.
// So reads of popular rows cost no query, and a write to one row makes no reader of
// other rows wait.

const (
	// mostKept bounds the cached rows, at up to some KiB each.
	mostKept = 1 << 14
	// mostChanged bounds the event streams whose last change is known.
	mostChanged = 1 << 14
	// keptFor is how long cached rows are used after the log was last seen to have no
	// more records. While the log cannot be read, it bounds how long a key that was
	// revoked elsewhere is still valid.
	keptFor = 500 * time.Millisecond
	// lookEvery is how often the reader asks for the end of the log.
	lookEvery = 200 * time.Millisecond
)

type kept struct {
	log  Log
	head func(context.Context) (domain.Position, error)

	mu      sync.Mutex
	rows    map[Key]keptRow         // guarded by mu
	changed map[Key]domain.Position // guarded by mu; the last changes after floor
	floor   domain.Position         // guarded by mu; changes up to it may be unknown
	tail    Checkpoint              // guarded by mu; all changes in (floor, tail] are known
	seen    time.Time               // guarded by mu; when tail was the end of the log, zero = not following
	moved   chan struct{}           // guarded by mu; closed and replaced when tail moves or following ends
}

type keptRow struct {
	row any
	at  domain.Position // it is the fold of the log up to here
}

// NewFollowingReader makes a reader that caches rows while Follow runs. log is the log
// from which the store's rows are folded, and head gives its end.
func NewFollowingReader(store Store, log Log, head func(context.Context) (domain.Position, error)) *Reader {
	k := &kept{log: log, head: head, moved: make(chan struct{})}
	k.reset()
	return &Reader{store: store, kept: k}
}

// Follow follows the log, so that reads of single rows need not ask the store each
// time. It returns nil when ctx ends. A failure is tried again; until it succeeds every
// read asks the store.
func (r *Reader) Follow(ctx context.Context) error {
	if r.kept == nil {
		return errors.New("projections: this reader was made without a log to follow")
	}
	for ctx.Err() == nil {
		// Every failure is one of log or store, which other parts meet and report too.
		_ = r.kept.follow(ctx, r.store)
		r.kept.lose()
		wait.For(ctx, retryFirst)
	}
	return nil
}

func (k *kept) follow(ctx context.Context, store Store) error {
	tail, err := store.Checkpoint(ctx)
	if err != nil {
		return err
	}
	k.begin(tail)
	var look time.Time
	for {
		if now := time.Now(); !now.Before(look) {
			if tail, err = k.toEnd(ctx, tail); err != nil {
				return err
			}
			k.sawEnd(now)
			look = now.Add(lookEvery)
		}
		bounded, cancel := context.WithDeadline(ctx, look)
		err := k.log.Wait(bounded, tail.Position)
		cancel()
		if err == nil {
			tail, _, err = k.next(ctx, tail)
		}
		if ctx.Err() != nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// toEnd reads to the present end of the log. Only an answer proves that there are no
// more records: silence may mean that the log is away.
func (k *kept) toEnd(ctx context.Context, tail Checkpoint) (Checkpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, keptFor)
	defer cancel()
	end, err := k.head(ctx)
	if err == nil && end < tail.Position {
		err = ErrForked
	}
	for more := true; err == nil && more && tail.Position < end; {
		tail, more, err = k.next(ctx, tail)
	}
	return tail, err
}

// next applies the records after tail.
func (k *kept) next(ctx context.Context, tail Checkpoint) (Checkpoint, bool, error) {
	records, _, err := readBehind(ctx, k.log, tail, batchSize)
	if err == nil {
		tail, err = k.note(tail, records)
	}
	return tail, len(records) > 0, err
}

func (k *kept) reset() {
	k.rows, k.changed = map[Key]keptRow{}, map[Key]domain.Position{}
	k.floor, k.tail, k.seen = 0, Checkpoint{}, time.Time{}
}

// begin starts with an empty cache at a checkpoint of the read models.
func (k *kept) begin(tail Checkpoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reset()
	k.floor, k.tail = tail.Position, tail
}

// lose ends following: the cache is dropped, and nobody needs to wait.
func (k *kept) lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reset()
	k.wake()
}

func (k *kept) wake() {
	close(k.moved)
	k.moved = make(chan struct{})
}

func (k *kept) sawEnd(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = at
}

// note applies records that follow tail.
func (k *kept) note(tail Checkpoint, records []domain.Record) (Checkpoint, error) {
	if len(records) == 0 {
		return tail, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range records {
		rec := &records[i]
		if rec.Position != tail.Position+1 {
			return tail, fmt.Errorf("the log goes from position %d to %d", tail.Position, rec.Position)
		}
		key := keyOf(rec.Stream)
		k.change(key, rec.Position)
		if key.Kind == Users || key.Kind == Clients {
			k.change(Key{Quotas, key.ID}, rec.Position) // it ends with its owner
		}
		tail = Checkpoint{Position: rec.Position, EventID: rec.ID}
	}
	if len(k.changed) > mostChanged {
		clear(k.changed)
		k.floor = tail.Position
	}
	k.tail = tail
	k.wake()
	return tail, nil
}

// change says that a row changes at p. The caller holds mu.
func (k *kept) change(key Key, p domain.Position) {
	if was, ok := k.rows[key]; ok && was.at < p {
		delete(k.rows, key)
	}
	k.changed[key] = p
}

// get gives a cached row. For a row that is not cached it gives the position of its
// last known change.
func (k *kept) get(key Key) (row any, ok bool, changed domain.Position) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.seen) < keptFor {
		if r, ok := k.rows[key]; ok {
			return r.row, true, 0
		}
	}
	return nil, false, k.changed[key]
}

// known gives the position up to which all changes are known, 0 when nobody follows.
func (k *kept) known() domain.Position {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen.IsZero() {
		return 0
	}
	return k.tail.Position
}

// put caches a row that was read from read models at a position, unless the row has
// changed since or may have.
func (k *kept) put(key Key, row any, at domain.Position) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen.IsZero() || at < k.floor || at < k.changed[key] {
		return
	}
	if len(k.rows) >= mostKept {
		for other := range k.rows { // some rows, in the random order of a map
			if delete(k.rows, other); len(k.rows) < mostKept*7/8 {
				break
			}
		}
	}
	k.rows[key] = keptRow{row, at}
}

// reach waits until all changes up to p are known. ok is false when nobody follows the
// log now.
func (k *kept) reach(ctx context.Context, p domain.Position) (ok bool, err error) {
	for {
		k.mu.Lock()
		at, moved, following := k.tail.Position, k.moved, time.Since(k.seen) < keptFor
		k.mu.Unlock()
		switch {
		case at >= p:
			return true, nil
		case !following:
			return false, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// WaitRow returns when reads of single rows show p. It is [Reader.Wait] for callers
// that read no list, and mostly returns at once.
func (r *Reader) WaitRow(ctx context.Context, p domain.Position) error {
	if r.kept == nil || p <= 0 {
		return r.Wait(ctx, p)
	}
	bounded, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	ok, err := r.kept.reach(bounded, p)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w %d", ErrStale, p)
	}
	if err == nil && !ok {
		return r.Wait(ctx, p)
	}
	return err
}

// get gives a row as of its last change that is known here, or of a later one.
func get[R any](ctx context.Context, r *Reader, key Key) (row R, ok bool, err error) {
	var changed domain.Position
	if r.kept != nil {
		var remembered any
		if remembered, ok, changed = r.kept.get(key); ok {
			return remembered.(R), true, nil
		}
	}
	if r.streams != nil && identities[key.Kind] != nil {
		at, live, err := r.folded(ctx, key, rowOf(&row))
		if err != nil || !live {
			return *new(R), false, err
		}
		if r.kept != nil {
			r.kept.put(key, row, at)
		}
		return row, true, nil
	}
	values, at, err := r.store.Read(ctx, key)
	if err == nil && at < changed {
		// The read models do not show yet what is known here.
		if err = r.Wait(ctx, changed); err == nil {
			values, at, err = r.store.Read(ctx, key)
		}
		if err == nil && at < changed {
			err = fmt.Errorf("%w %d", ErrStale, changed)
		}
	}
	if err != nil || values[0] == nil {
		return row, false, err
	}
	row, err = decodeRow[R](key, values[0])
	if err == nil && r.kept != nil {
		r.kept.put(key, row, at)
	}
	return row, err == nil, err
}
