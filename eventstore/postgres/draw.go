package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// draw hands out the ids of one sequence. Callers that come while a query is under way
// share the next query. A shared query draws some more ids, for the callers that come
// right after: with 32 callers, one query for each cost more than their appends. A lone
// caller gets one id with each query, so in quiet times a restart leaves no holes.
// After a busy time it leaves up to maxAhead.
type draw struct {
	next    func(ctx context.Context, count int32) ([]int64, error)
	waiting chan chan<- drawn // the callers that wait for an id
	turn    chan struct{}     // holds one token; its owner queries for all waiting callers

	mu    sync.Mutex
	stock []int64 // guarded by mu; drawn and not handed out, in rising order
}

type drawn struct {
	id  int64
	err error
}

const (
	maxDraw  = 256 // how many callers share a query
	maxAhead = 128 // how many more are drawn in a shared query
)

func newDraws(q *queries.Queries) map[domain.Sequence]*draw {
	draws := map[domain.Sequence]*draw{}
	for sequence, next := range map[domain.Sequence]func(context.Context, int32) ([]int64, error){
		domain.SequenceUser: q.NextUserIDs, domain.SequenceClient: q.NextClientIDs, domain.SequenceMapping: q.NextMappingIDs,
	} {
		d := &draw{next: next, waiting: make(chan chan<- drawn, maxDraw), turn: make(chan struct{}, 1)}
		d.turn <- struct{}{}
		draws[sequence] = d
	}
	return draws
}

// NextID implements [eventstore.Store].
func (s *Store) NextID(ctx context.Context, sequence domain.Sequence) (int64, error) {
	d, ok := s.draws[sequence]
	if !ok {
		return 0, fmt.Errorf("eventstore: unknown sequence %q", sequence)
	}
	for {
		id, err := d.wait(ctx)
		// The query belonged to another caller, and so did the context that ended.
		if err != nil && ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			continue
		}
		if err != nil {
			return 0, failure(ctx, "draw an id", err)
		}
		return id, nil
	}
}

func (d *draw) wait(ctx context.Context) (int64, error) {
	if ids := d.fromStock(1); len(ids) > 0 && ctx.Err() == nil {
		return ids[0], nil
	}
	mine := make(chan drawn, 1)
	select {
	case d.waiting <- mine:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for {
		select {
		case got := <-mine:
			return got.id, got.err
		case <-ctx.Done():
			return 0, ctx.Err() // an id that was drawn for this caller becomes a hole
		case <-d.turn:
			d.serve(ctx)
			d.turn <- struct{}{}
		}
	}
}

// serve draws for all waiting callers.
func (d *draw) serve(ctx context.Context) {
	var all []chan<- drawn
	for len(all) < maxDraw {
		select {
		case w := <-d.waiting:
			all = append(all, w)
			continue
		default:
		}
		break
	}
	// The stock comes first: it may have been filled while the callers waited, and ids
	// rise.
	ids := d.fromStock(len(all))
	var err error
	if missing := len(all) - len(ids); missing > 0 {
		var more []int64
		more, err = d.next(ctx, int32(missing+min(4*(len(all)-1), maxAhead)))
		ids = append(ids, more[:min(missing, len(more))]...)
		d.mu.Lock()
		d.stock = append(d.stock, more[min(missing, len(more)):]...)
		d.mu.Unlock()
	}
	for i, w := range all {
		if i < len(ids) {
			w <- drawn{id: ids[i]}
		} else {
			w <- drawn{err: err}
		}
	}
}

// fromStock gives up to n ids of the stock.
func (d *draw) fromStock(n int) []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, len(d.stock))
	ids := d.stock[:n:n]
	d.stock = d.stock[n:]
	return ids
}
