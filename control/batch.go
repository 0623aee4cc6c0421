package control

import (
	"context"
	"errors"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

// batcher sends what is wanted from the State service in few calls: what comes
// while the calls it may make are under way goes together in the next. So one
// lookup alone waits for nobody, and thousands after a gap make no storm.
type batcher struct {
	of *Lookup

	mu    sync.Mutex
	queue []*wish // guarded by mu
	calls int     // under way; guarded by mu
}

// wish is what one lookup wants.
type wish struct {
	ctx    context.Context
	want   Want
	answer chan Answer // room for one
}

func (b *batcher) ask(ctx context.Context, want Want) (domain.ClientView, error) {
	w := &wish{ctx: ctx, want: want, answer: make(chan Answer, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, w)
	if b.calls < b.of.config.Calls {
		b.calls++
		// The lookup that asks is running itself, so Close has not waited yet.
		b.of.running.Go(b.work)
	}
	b.mu.Unlock()
	select {
	case a := <-w.answer:
		return a.View, a.Err
	case <-ctx.Done():
		return domain.ClientView{}, ctx.Err()
	}
}

// work makes calls until nobody waits.
func (b *batcher) work() {
	for {
		wishes := b.take()
		if wishes == nil {
			return
		}
		b.call(wishes)
	}
}

// take gives the next wishes, or nil and ends the call's being counted.
func (b *batcher) take() []*wish {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.queue), b.of.config.Batch)
	if n == 0 {
		b.calls--
		return nil
	}
	wishes := b.queue[:n:n]
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil // and with it the array
	}
	return wishes
}

func (b *batcher) call(wishes []*wish) {
	least := map[int64]domain.Position{}
	for _, w := range wishes {
		if w.ctx.Err() == nil {
			least[w.want.ClientID] = max(least[w.want.ClientID], w.want.Min)
		}
	}
	if len(least) == 0 {
		return // they have all left
	}
	wants := make([]Want, 0, len(least))
	for id, p := range least {
		wants = append(wants, Want{ClientID: id, Min: p})
	}
	ctx, cancel := context.WithTimeout(b.of.life, b.of.config.Timeout)
	defer cancel()
	b.of.config.Metrics.batches.Observe(float64(len(wants)))
	answers, err := b.of.config.Remote.Clients(ctx, wants)
	for _, w := range wishes {
		a, ok := answers[w.want.ClientID]
		switch {
		case ok:
		case err != nil:
			a = Answer{Err: err}
		default:
			a = Answer{Err: errors.New("look a client up: it was not answered")}
		}
		w.answer <- a
	}
}
