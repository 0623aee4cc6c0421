package main

import (
	"context"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/wait"
)

// settleTime is the pause between two events after a rollback: the read models show
// this log again, and followers are told. In this time the other control planes, which
// followers ask too, also notice the rollback.
const settleTime = time.Second

// history reports whether the services between the processes show the present log. A
// restore, or a failover to a standby that lagged, rolls the log back.
type history struct {
	log eventstore.Store
	between
}

// rowsGoOn reports whether the read models belong to the log.
func (h history) rowsGoOn(ctx context.Context) (bool, error) {
	at, err := h.rows.Checkpoint(ctx)
	if err != nil {
		return false, err
	}
	return h.has(ctx, eventstore.Checkpoint(at))
}

// has reports whether the log contains a place.
func (h history) has(ctx context.Context, at eventstore.Checkpoint) (bool, error) {
	err := h.log.Verify(ctx, at)
	if errors.Is(err, eventstore.ErrForked) {
		return false, nil
	}
	return err == nil, err
}

// settle waits until followers can take a snapshot of the present log.
func (h history) settle(ctx context.Context) error {
	for {
		goOn, err := h.rowsGoOn(ctx)
		if err == nil && goOn {
			break
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	if !wait.For(ctx, settleTime) {
		return ctx.Err()
	}
	if h.views == nil {
		return nil
	}
	return h.views.Forget(ctx)
}

var (
	errRowsForked = errors.New("the log was rolled back, and the read models still show records that it has lost; they are being rebuilt")
	errFeedForked = errors.New("the log was rolled back, and forwarders still use records that it has lost; they are told when the read models are rebuilt")
)

// check is an alarm of readiness: until it is over, lists and forwarders show records
// that the log has lost.
func (h history) check(ctx context.Context) error {
	if goOn, err := h.rowsGoOn(ctx); err == nil && !goOn { // an error comes from Redis or the log, which have checks
		return errRowsForked
	}
	end, _, ok, err := h.publisher.Last(ctx)
	if err != nil || !ok {
		return nil //nolint:nilerr // Redis has a check of its own
	}
	if goOn, err := h.has(ctx, eventstore.Checkpoint(end)); err == nil && !goOn && !end.EventID.IsZero() {
		return errFeedForked
	}
	return nil
}
