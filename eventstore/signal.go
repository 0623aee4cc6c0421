package eventstore

import (
	"context"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// PollInterval is how soon [Store.Wait] notices an append by another process.
// Polling is the guarantee and not LISTEN/NOTIFY: a notification takes a lock of
// the whole Postgres cluster at commit, and a stuck listener fills a queue
// until commits fail.
const PollInterval = 250 * time.Millisecond

// Signal tells waiting goroutines how far the log is. Stores of this module use
// it for [Store.Wait]. The zero value is ready.
type Signal struct {
	mu      sync.Mutex
	reached domain.Position // guarded by mu
	raised  chan struct{}   // guarded by mu; closed when reached rises, nil when nobody waits
}

// Raise wakes those who wait for a position below p.
func (s *Signal) Raise(p domain.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p <= s.reached {
		return
	}
	s.reached = p
	if s.raised != nil {
		close(s.raised)
		s.raised = nil
	}
}

// Reached gives how far the log is known to be.
func (s *Signal) Reached() domain.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

func (s *Signal) state() (domain.Position, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raised == nil {
		s.raised = make(chan struct{})
	}
	return s.reached, s.raised
}

// Wait returns once the log is beyond after. poll asks the database; it may be
// nil when nobody else appends. done ends all waiting when the store closes.
func (s *Signal) Wait(ctx context.Context, after domain.Position, done <-chan struct{}, poll func(context.Context) (domain.Position, error)) error {
	var tick <-chan time.Time
	if poll != nil {
		t := time.NewTicker(PollInterval)
		defer t.Stop()
		tick = t.C
	}
	for {
		reached, raised := s.state()
		if reached > after {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return ErrUnavailable
		case <-raised:
		case <-tick:
			p, err := poll(ctx)
			if err != nil {
				return err
			}
			s.Raise(p)
		}
	}
}
