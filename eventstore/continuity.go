package eventstore

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// continuityEvery is how often a process checks that the log has not been rolled back.
// Between two checks, commands may be decided on cached states that the log has lost,
// unless an expected version shows it.
const continuityEvery = 250 * time.Millisecond

// Watched is a log in a database that others can roll back.
type Watched interface {
	Head(ctx context.Context) (Checkpoint, error)
	// Verify asks the database itself. It gives [ErrForked] for a checkpoint that the
	// log does not contain.
	Verify(ctx context.Context, c Checkpoint) error
	// Newest gives the newest place that this process knows to have been in the log.
	Newest() domain.Place
	// Forget drops what the store itself has cached.
	Forget()
}

// Continuity watches whether the log has been rolled back. A restore, or a failover to
// a standby that lagged, rolls the log back: acknowledged records are gone, and other
// records get their positions. Every part that caches something of the log registers a
// function that drops the cache.
type Continuity struct {
	log     Watched
	metrics *Metrics
	logger  *slog.Logger
	forget  []func()
	at      domain.Place // the place at the last check; used by Run alone
}

// NewContinuity makes a watch; it works while Run runs. Each of forget is called when
// the log was rolled back.
func NewContinuity(log Watched, metrics *Metrics, logger *slog.Logger, forget ...func()) *Continuity {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Continuity{log: log, metrics: metrics, logger: logger, forget: forget}
}

// Run checks until ctx ends, which is not an error.
func (c *Continuity) Run(ctx context.Context) error {
	for {
		c.look(ctx) // on an error the database is away, which other parts report
		if !wait.For(ctx, continuityEvery) {
			return nil
		}
	}
}

func (c *Continuity) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, appendLimit)
	defer cancel()
	known := c.at
	if newest := c.log.Newest(); newest.Position > known.Position {
		known = newest
	}
	head, err := c.log.Head(ctx)
	if err != nil {
		return
	}
	now := domain.Place(head)
	if now == known {
		c.at = now
		return
	}
	switch err := c.log.Verify(ctx, Checkpoint(known)); {
	case errors.Is(err, ErrForked):
		c.metrics.rolledBack()
		c.logger.Error("the log was rolled back: acknowledged records after its end are lost; dropping the caches of this process",
			"was", known.Position, "event_id", known.EventID, "is", now.Position)
		c.log.Forget()
		for _, forget := range c.forget {
			forget()
		}
	case err != nil:
		return
	}
	c.at = now
}
