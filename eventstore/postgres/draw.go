package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// draw hands out the ids of one sequence. Who comes while a query is under way
// shares the next one, and a shared query draws some more, for those who come
// right after: with 32 callers, a query for each cost more than their appends.
// A lone caller gets one id a query, so that in quiet times a restart leaves no
// holes; after a busy time it leaves up to maxAhead.
type draw struct {
	next    func(ctx context.Context, count int32) ([]int64, error)
	waiting chan chan<- drawn // those who wait for an id
	turn    chan struct{}     // holds one token; who has it queries for all who wait

	mu    sync.Mutex
	stock []int64 // guarded by mu; drawn and not given, rising
}

type drawn struct {
	id  int64
	err error
}

const (
	maxDraw  = 256 // how many share a query
	maxAhead = 128 // how many more are drawn then
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
		// The query was another caller's, and so was the context that ended.
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
	if ids := d.take(1); len(ids) > 0 && ctx.Err() == nil {
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
			return 0, ctx.Err() // an id drawn for it is a hole
		case <-d.turn:
			d.serve(ctx)
			d.turn <- struct{}{}
		}
	}
}

// serve draws for all who wait now.
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
	// The stock first: it may have been filled while they came, and ids rise.
	ids := d.take(len(all))
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

// take gives up to n ids of the stock.
func (d *draw) take(n int) []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, len(d.stock))
	ids := d.stock[:n:n]
	d.stock = d.stock[n:]
	return ids
}
