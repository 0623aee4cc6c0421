package main

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
)

// appendsChannel is where control planes tell each other that they appended. The
// one that relays and projects would else find out by polling, a quarter of a
// second later.
const appendsChannel = "tunnox:appended"

// tellEvery bounds how often a control plane says so; what is appended in between
// is told together.
const tellEvery = 5 * time.Millisecond

// appends tells other control planes of appends and hears of theirs. It is only
// for speed: what is not heard is found by polling.
type appends struct {
	store *postgres.Store
	redis *redis.Client
	heard atomic.Int64 // the last position that another has told
}

// tellAppends connects the log of this process with those of the others.
func (p *process) tellAppends(store *postgres.Store, client *redis.Client) {
	a := &appends{store: store, redis: client}
	p.run("appends of others", a.listen)
	p.run("appends", a.tell)
}

// tell says how far the log is whenever this process has moved it.
func (a *appends) tell(ctx context.Context) error {
	at := a.store.Reached()
	for {
		if err := a.store.Wait(ctx, at); err != nil {
			// The log is away, which others say and see to.
			if !pause(ctx, eventstore.PollInterval) {
				return nil
			}
			continue
		}
		if at = a.store.Reached(); int64(at) != a.heard.Load() {
			// Nobody may be there to hear, or Redis is away: they poll.
			_ = a.redis.Publish(ctx, appendsChannel, int64(at)).Err()
		}
		if !pause(ctx, tellEvery) {
			return nil
		}
	}
}

// listen has this process look at the log when another says that it moved.
func (a *appends) listen(ctx context.Context) error {
	heard := a.redis.Subscribe(ctx, appendsChannel) // connects again by itself
	defer heard.Close()
	messages := heard.Channel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-messages:
			if !ok {
				return nil // the connections were closed, which is the end
			}
			position, err := strconv.ParseInt(m.Payload, 10, 64)
			if err != nil || domain.Position(position) <= a.store.Reached() {
				continue
			}
			a.heard.Store(position)
			a.store.Nudge()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
