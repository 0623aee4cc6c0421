package eventstore

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

// continuityEvery is how often a process looks whether the log is the one it was.
// Whatever is decided on remembered states in between is decided on states that
// were lost, unless an expected version shows it.
const continuityEvery = 250 * time.Millisecond

// Watched is a log in a database that others can take back.
type Watched interface {
	Head(ctx context.Context) (Checkpoint, error)
	// Verify asks the database itself, and gives [ErrForked].
	Verify(ctx context.Context, c Checkpoint) error
	// Newest gives the newest place that this process knows the log to have had.
	Newest() domain.Place
	// Forget forgets what the store itself remembers.
	Forget()
}

// Continuity watches whether the log goes on from where it was. A log is taken back
// by a restore, or by a failover to a standby that lagged: acknowledged records are
// gone then, and others get their positions. Whoever remembers something of the log
// registers what forgets it.
type Continuity struct {
	log     Watched
	metrics *Metrics
	logger  *slog.Logger
	forget  []func()
	at      domain.Place // of the last look; used by Run alone
}

// NewContinuity makes a watch; it works while Run runs. Each of forget is called
// when the log was taken back.
func NewContinuity(log Watched, metrics *Metrics, logger *slog.Logger, forget ...func()) *Continuity {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Continuity{log: log, metrics: metrics, logger: logger, forget: forget}
}

// Run looks until ctx ends, which is no error.
func (c *Continuity) Run(ctx context.Context) error {
	for {
		c.look(ctx) // what fails is a log that is away, which others say
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
		c.metrics.takenBack()
		c.logger.Error("the log was taken back: what was acknowledged behind its end is lost; forgetting what this process remembers",
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
