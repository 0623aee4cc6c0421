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

// tellEvery bounds how often a control plane reports its appends; appends in between
// are reported together.
const tellEvery = 5 * time.Millisecond

// bell carries the end of the log between control planes. Without it the control plane
// that relays and projects would notice by polling, a quarter of a second later.
type bell interface {
	Ring(ctx context.Context, at domain.Position) error
	Listen(ctx context.Context, heard func(domain.Position)) error
}

// appends tells other control planes of appends, and receives their reports. It is only
// for speed: polling finds every append that was not reported.
type appends struct {
	store *postgres.Store
	bell  bell
	heard atomic.Int64 // the last position that another one has reported
}

// tellAppends connects the log of this process with those of the others.
func (p *process) tellAppends(store *postgres.Store, b bell) {
	a := &appends{store: store, bell: b}
	p.run("appends of others", a.listen)
	p.run("appends", a.tell)
}

// tell reports the end of the log whenever this process has moved it.
func (a *appends) tell(ctx context.Context) error {
	at := a.store.Reached()
	for {
		if err := a.store.Wait(ctx, at); err != nil {
			// The log is away; other parts report and handle this.
			if !wait.For(ctx, eventstore.PollInterval) {
				return nil
			}
			continue
		}
		if at = a.store.Reached(); int64(at) != a.heard.Load() {
			// There may be no listener, or Redis is away: then the others poll.
			_ = a.bell.Ring(ctx, at)
		}
		if !wait.For(ctx, tellEvery) {
			return nil
		}
	}
}

// listen makes this process look at the log when another one reports an append.
func (a *appends) listen(ctx context.Context) error {
	return a.bell.Listen(ctx, func(at domain.Position) {
		if at <= a.store.Reached() {
			return
		}
		a.heard.Store(int64(at))
		a.store.Nudge()
	})
}
