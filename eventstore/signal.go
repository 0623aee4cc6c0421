package eventstore

import (
	"context"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// PollInterval is how soon [Store.Wait] notices an append by another process. Polling
// gives the guarantee, not LISTEN/NOTIFY: a notification takes a lock on the whole
// Postgres cluster at commit, and a stuck listener fills a queue until commits fail.
const PollInterval = 250 * time.Millisecond

// Signal tells waiting goroutines how far the log goes. Stores of this module use it
// for [Store.Wait]. The zero value is ready.
type Signal struct {
	mu      sync.Mutex
	reached domain.Position // guarded by mu
	raised  chan struct{}   // guarded by mu; closed when reached rises, nil when nobody waits
	nudged  chan struct{}   // guarded by mu; closed by Nudge, nil when nobody waits
}

// Raise wakes all that wait for a position below p.
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

// found sets the position that the database has given. The question was asked when the
// log was known to reach before. A log that ends earlier was rolled back; if the old
// end stayed, everybody would miss the records up to that end.
func (s *Signal) found(p, before domain.Position) {
	s.mu.Lock()
	if p < before && s.reached == before { // otherwise somebody has appended since
		s.reached = p
	}
	s.mu.Unlock()
	s.Raise(p)
}

// Forget drops the known end of the log: it was rolled back.
func (s *Signal) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached = 0
}

// Reached gives the known end of the log.
func (s *Signal) Reached() domain.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

// Nudge makes all that wait ask the database at once: somebody has heard that another
// process appended. It sets no position, so a false report costs one query and does no
// harm.
func (s *Signal) Nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nudged != nil {
		close(s.nudged)
		s.nudged = nil
	}
}

func (s *Signal) state() (reached domain.Position, raised, nudged <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raised == nil {
		s.raised = make(chan struct{})
	}
	if s.nudged == nil {
		s.nudged = make(chan struct{})
	}
	return s.reached, s.raised, s.nudged
}

// Wait returns when the log is beyond after. poll asks the database; it may be nil when
// nobody else appends. done ends all waiting when the store closes.
func (s *Signal) Wait(ctx context.Context, after domain.Position, done <-chan struct{}, poll func(context.Context) (domain.Position, error)) error {
	var tick <-chan time.Time
	if poll != nil {
		t := time.NewTicker(PollInterval)
		defer t.Stop()
		tick = t.C
	}
	for {
		reached, raised, nudged := s.state()
		if reached > after {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return ErrUnavailable
		case <-raised:
			continue
		case <-nudged:
		case <-tick:
		}
		if poll == nil {
			continue
		}
		p, err := poll(ctx)
		if err != nil {
			return err
		}
		s.found(p, reached)
	}
}
