// Package gather lets callers that ask at the same time share a round trip.
//
// Its duty: a store in another process answers a question about twenty keys in hardly
// more time than a question about one. Most of the cost of a single question is the
// round trip, on both sides. A [Gatherer] sends the present questions of its callers
// together. During that round trip it collects further questions and sends them
// together next. So nobody waits for others to arrive: a single caller is served as
// without a gatherer, and the more callers there are, the less each of them costs.
// Nothing is cached: every answer was given after its question.
package gather

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// Options configure a gatherer; the zero value works.
type Options struct {
	// Concurrent is how many round trips are under way at the same time; 0 = 2. A
	// second one continues when the first is stuck, and the peer can work while we do.
	Concurrent int
	// Keys bounds the keys in a round trip, because a peer may serve nobody else during
	// it; 0 = 256.
	Keys int
	// Limit bounds the time of a round trip, whoever waits for it; 0 = 2 s.
	Limit time.Duration
	// Life ends every round trip when it ends; nil = only Limit does.
	Life context.Context
}

// Gatherer asks for many callers. Its methods may be called concurrently.
type Gatherer[K, V any] struct {
	ask     func(ctx context.Context, keys []K) ([]V, error)
	options Options

	mu      sync.Mutex
	waiting []*question[K, V] // guarded by mu
	trips   int               // guarded by mu; goroutines that make round trips
	running sync.WaitGroup
}

// question is the question of one caller.
type question[K, V any] struct {
	asker  context.Context
	keys   []K
	done   chan struct{} // closed when the fields below are set
	values []V
	err    error
}

// New makes a gatherer. ask gives a value for each key, in order, or an error for all
// of them.
func New[K, V any](ask func(ctx context.Context, keys []K) ([]V, error), o Options) *Gatherer[K, V] {
	o.Concurrent, o.Keys, o.Limit = cmp.Or(o.Concurrent, 2), cmp.Or(o.Keys, 256), cmp.Or(o.Limit, 2*time.Second)
	if o.Life == nil {
		o.Life = context.Background()
	}
	return &Gatherer[K, V]{ask: ask, options: o}
}

// Ask gives a value for each key, in order. A caller whose context ends returns; other
// callers in the same round trip still get their answers.
func (g *Gatherer[K, V]) Ask(ctx context.Context, keys ...K) ([]V, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := &question[K, V]{asker: ctx, keys: keys, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, q)
	if g.trips < g.options.Concurrent {
		g.trips++
		g.running.Go(g.serve)
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

// serve makes round trips until nobody waits for one.
func (g *Gatherer[K, V]) serve() {
	for {
		g.mu.Lock()
		together, keys := g.collect()
		if len(together) == 0 {
			g.trips--
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

// collect gives the waiting questions that fit into one round trip. The caller holds
// mu.
func (g *Gatherer[K, V]) collect() (together []*question[K, V], keys []K) {
	seen := 0
	for _, q := range g.waiting {
		if len(together) > 0 && len(keys)+len(q.keys) > g.options.Keys {
			break
		}
		if seen++; q.asker.Err() == nil { // the keys of a caller that has returned are not asked for
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
