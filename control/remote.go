package control

import (
	"context"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/gather"
)

// remote asks the State service for what lookups want, in few calls: a single lookup
// waits for nobody, and thousands of lookups after a gap do not flood the control
// plane.
type remote struct {
	config LookupConfig
	wants  *gather.Gatherer[Want, Answer]
}

// newRemote makes a remote whose calls end with life.
func newRemote(life context.Context, config LookupConfig) *remote {
	r := &remote{config: config}
	r.wants = gather.New(r.call, gather.Options{Concurrent: config.Calls, Keys: config.Batch, Limit: config.Timeout, Life: life})
	return r
}

func (r *remote) ask(ctx context.Context, want Want) (domain.ClientView, error) {
	answers, err := r.wants.Ask(ctx, want)
	if err != nil {
		return domain.ClientView{}, err
	}
	return answers[0].View, answers[0].Err
}

// call asks for each client once, at the newest wanted position.
func (r *remote) call(ctx context.Context, wants []Want) ([]Answer, error) {
	least := map[int64]domain.Position{}
	for _, w := range wants {
		least[w.ClientID] = max(least[w.ClientID], w.Min)
	}
	once := make([]Want, 0, len(least))
	for id, p := range least {
		once = append(once, Want{ClientID: id, Min: p})
	}
	r.config.Metrics.batches.Observe(float64(len(once)))
	found, err := r.config.Remote.Clients(ctx, once)
	if err == nil {
		err = errors.New("look a client up: there was no answer for it")
	}
	answers := make([]Answer, len(wants))
	for i, w := range wants {
		a, ok := found[w.ClientID]
		if !ok {
			a = Answer{Err: err}
		}
		answers[i] = a
	}
	return answers, nil
}
