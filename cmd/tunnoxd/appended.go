package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/wait"
)

// tellEvery bounds how often a control plane says that it appended; what is
// appended in between is told together.
const tellEvery = 5 * time.Millisecond

// bell carries how far the log is between control planes. The one that relays and
// projects would else find out by polling, a quarter of a second later.
type bell interface {
	Ring(ctx context.Context, at domain.Position) error
	Listen(ctx context.Context, heard func(domain.Position)) error
}

// appends tells other control planes of appends and hears of theirs. It is only
// for speed: what is not heard is found by polling.
type appends struct {
	store *postgres.Store
	bell  bell
	heard atomic.Int64 // the last position that another has told
}

// tellAppends connects the log of this process with those of the others.
func (p *process) tellAppends(store *postgres.Store, b bell) {
	a := &appends{store: store, bell: b}
	p.run("appends of others", a.listen)
	p.run("appends", a.tell)
}

// tell says how far the log is whenever this process has moved it.
func (a *appends) tell(ctx context.Context) error {
	at := a.store.Reached()
	for {
		if err := a.store.Wait(ctx, at); err != nil {
			// The log is away, which others say and see to.
			if !wait.For(ctx, eventstore.PollInterval) {
				return nil
			}
			continue
		}
		if at = a.store.Reached(); int64(at) != a.heard.Load() {
			// Nobody may be there to hear, or Redis is away: they poll.
			_ = a.bell.Ring(ctx, at)
		}
		if !wait.For(ctx, tellEvery) {
			return nil
		}
	}
}

// listen has this process look at the log when another says that it moved.
func (a *appends) listen(ctx context.Context) error {
	return a.bell.Listen(ctx, func(at domain.Position) {
		if at <= a.store.Reached() {
			return
		}
		a.heard.Store(int64(at))
		a.store.Nudge()
	})
}
