// Package gather lets callers who ask at the same time share a round trip.
//
// Its duty: a store in another process answers a question about twenty keys in
// hardly more time than one about one, and most of what a single question costs
// is the way there, on both sides. A [Gatherer] sends what its callers ask at
// once; while that is on its way, it collects what others ask and sends that
// together. So nobody waits for company: one caller alone is served as before,
// and the more there are the less each costs. Nothing is remembered: every
// answer was given after it was asked for.
package gather

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// Options of a gatherer; the zero value works.
type Options struct {
	// Flights is how many round trips are under way at a time; 0 = 2. A second one
	// goes on when the first is stuck, and lets the peer work while we do.
	Flights int
	// Keys bounds a round trip, during which a peer may serve nobody else; 0 = 256.
	Keys int
	// Limit bounds a round trip, whoever waits for it; 0 = 2 s.
	Limit time.Duration
	// Life ends every round trip; nil = nothing does but the limit.
	Life context.Context
}

// Gatherer asks for many callers. Its methods may be called concurrently.
type Gatherer[K, V any] struct {
	ask     func(ctx context.Context, keys []K) ([]V, error)
	options Options

	mu      sync.Mutex
	waiting []*question[K, V] // guarded by mu
	flights int               // guarded by mu; running goroutines
	running sync.WaitGroup
}

// question is what one caller asks.
type question[K, V any] struct {
	asker  context.Context
	keys   []K
	done   chan struct{} // closed when what is below is there
	values []V
	err    error
}

// New makes a gatherer. ask gives a value for each key, in order, or an error
// for all of them.
func New[K, V any](ask func(ctx context.Context, keys []K) ([]V, error), o Options) *Gatherer[K, V] {
	o.Flights, o.Keys, o.Limit = cmp.Or(o.Flights, 2), cmp.Or(o.Keys, 256), cmp.Or(o.Limit, 2*time.Second)
	if o.Life == nil {
		o.Life = context.Background()
	}
	return &Gatherer[K, V]{ask: ask, options: o}
}

// Ask gives a value for each key, in order. A caller whose context ends leaves;
// those who share the round trip with it get their answers.
func (g *Gatherer[K, V]) Ask(ctx context.Context, keys ...K) ([]V, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := &question[K, V]{asker: ctx, keys: keys, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, q)
	if g.flights < g.options.Flights {
		g.flights++
		g.running.Go(g.fly)
	}
	g.mu.Unlock()
	select {
	case <-q.done:
		return q.values, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close waits for the round trips that are under way.
func (g *Gatherer[K, V]) Close() { g.running.Wait() }

// fly makes round trips until nobody waits for one.
func (g *Gatherer[K, V]) fly() {
	for {
		g.mu.Lock()
		together, keys := g.board()
		if len(together) == 0 {
			g.flights--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		ctx, cancel := context.WithTimeout(g.options.Life, g.options.Limit)
		values, err := g.ask(ctx, keys)
		cancel()
		for _, q := range together {
			if q.err = err; err == nil {
				q.values, values = values[:len(q.keys):len(q.keys)], values[len(q.keys):]
			}
			close(q.done)
		}
	}
}

// board takes those who wait, as many as fit; it needs mu.
func (g *Gatherer[K, V]) board() (together []*question[K, V], keys []K) {
	seen := 0
	for _, q := range g.waiting {
		if len(together) > 0 && len(keys)+len(q.keys) > g.options.Keys {
			break
		}
		if seen++; q.asker.Err() == nil { // who has left is asked for no more
			together, keys = append(together, q), append(keys, q.keys...)
		}
	}
	if left := g.waiting[seen:]; len(left) > 0 {
		g.waiting = append([]*question[K, V](nil), left...)
	} else {
		g.waiting = nil
	}
	return together, keys
}
