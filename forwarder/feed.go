package forwarder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
)

const (
	lookupTimeout  = 5 * time.Second // of one lookup, including the wait for the read model
	resnapshotters = 16              // lookups at once after a gap
)

// follow applies the configuration feed to the routes. It begins with the first client:
// before that there is nothing to keep up to date and no position to begin at. After a
// gap every connected client is looked up again; until that is done the routes use what
// they knew.
func (f *Forwarder) follow(ctx context.Context) error {
	var pause wait.Backoff
	for {
		from, ok := f.routes.start()
		if !ok {
			select {
			case <-f.viewed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := f.followFrom(ctx, from, &pause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, broker.ErrForked) {
			f.beginAnew(ctx, from)
			continue
		}
		if !errors.Is(err, broker.ErrGap) {
			return err
		}
		f.metrics.gaps.Inc()
		f.log.Warn("gap in the configuration feed, taking a snapshot of what is served here", "behind", from)
		known := f.routes.halt()
		pause.Wait(ctx) // the read model may still be before the feed's new start
		f.resnapshot(ctx, known)
	}
}

// beginAnew takes a snapshot after the log was rolled back. The routes' knowledge of
// clients, mappings and accounts comes from the lost log, so every new view replaces
// it, however low its position. Until a client's view is there, its routes use what
// they knew.
func (f *Forwarder) beginAnew(ctx context.Context, from domain.Position) {
	f.metrics.forks.Inc()
	f.metrics.anew.Set(1)
	f.log.Error("the log was rolled back: taking a new snapshot of the connected clients", "behind", from)
	f.routes.distrust()
	f.resnapshot(ctx, 0)
	for _, s := range f.routes.sessions() {
		s.assignWhole()
	}
	f.metrics.anew.Set(0)
	f.log.Warn("the routes of the connected clients match the present log now")
}

func (f *Forwarder) followFrom(ctx context.Context, from domain.Position, pause *wait.Backoff) error {
	feed, err := f.feed.Follow(ctx, from)
	if err != nil {
		return fmt.Errorf("follow the configuration feed: %w", err)
	}
	defer feed.Close()
	for {
		entry, err := feed.Next(ctx)
		if err != nil {
			return fmt.Errorf("follow the configuration feed: %w", err)
		}
		pause.Reset()
		if entry.Record == nil {
			f.routes.reached(entry.Position)
			f.metrics.position.Set(float64(entry.Position))
			f.metrics.lag.Set(0)
			continue
		}
		var fx effects
		if err := f.routes.advance(*entry.Record, &fx); err != nil {
			return fmt.Errorf("apply record %d of the configuration feed: %w", entry.Position, err)
		}
		f.carryOut(&fx)
		f.metrics.position.Set(float64(entry.Position))
		f.metrics.lag.Set(max(0, f.now().Sub(entry.Record.Meta.At).Seconds()))
	}
}

// resnapshot looks all subjects up again and waits until that is done.
func (f *Forwarder) resnapshot(ctx context.Context, known domain.Position) {
	slots := make(chan struct{}, resnapshotters)
	for _, what := range f.routes.subjects() {
		slots <- struct{}{}
		if !f.start(func() {
			defer func() { <-slots }()
			f.refresh(ctx, what, known)
		}) {
			return
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

// refresh looks a subject up again until it succeeds.
func (f *Forwarder) refresh(ctx context.Context, what subject, min domain.Position) {
	if what.client != 0 {
		f.refreshClient(ctx, what.client, min)
	} else {
		f.refreshIngress(ctx, what.ingress, min)
	}
}

// refreshClient looks a connected client up again until it succeeds. If the client is
// gone, its session ends.
func (f *Forwarder) refreshClient(ctx context.Context, clientID int64, min domain.Position) {
	var pause wait.Backoff
	for ctx.Err() == nil {
		s := f.routes.current(clientID)
		if s == nil {
			return
		}
		view, err := f.view(ctx, clientID, min)
		switch {
		case domain.CodeOf(err) == domain.CodeClientNotFound:
			s.end(wire.Refuse(wire.ClientDeleted))
			return
		case err != nil:
			f.log.Warn("looking a connected client up again", "client", clientID, "error", err)
			pause.Wait(ctx)
			continue
		}
		fx, again := f.routes.refresh(view)
		f.carryOut(fx)
		if again == 0 {
			return
		}
		min = again
	}
}

// view asks the lookup, and gives the same error for every client that does not exist.
func (f *Forwarder) view(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	view, err := f.lookup.ClientView(ctx, clientID, min)
	if c := &view.Client.State; err == nil && !c.Live() && c.ClaimedAs == 0 {
		err = &domain.Error{Code: domain.CodeClientNotFound, Message: "There is no such client."}
	}
	return view, err
}
