package redis

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// pollEvery is how often the checkpoint is read while somebody waits for a checkpoint
// that a projector in another process writes.
const pollEvery = 5 * time.Millisecond

type waiter struct {
	position domain.Position
	reached  chan struct{} // closed by the poller
}

// Wait implements projections.Store. However many callers wait, one poller reads.
func (s *Store) Wait(ctx context.Context, p domain.Position) error {
	c, err := s.Checkpoint(ctx)
	if err == nil && c.Position >= p {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w := &waiter{position: p, reached: make(chan struct{})}
	s.mu.Lock()
	s.waiting[w] = struct{}{}
	if !s.polling {
		s.polling = true
		s.poller.Go(s.poll)
	}
	s.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, w)
		return ctx.Err()
	}
}

// poll releases waiters until there are none.
func (s *Store) poll() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.poke:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := s.Checkpoint(ctx)
		cancel()
		s.mu.Lock()
		for w := range s.waiting {
			if err == nil && c.Position >= w.position {
				close(w.reached)
				delete(s.waiting, w)
			}
		}
		if len(s.waiting) == 0 {
			s.polling = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// Close waits for the store's own work; it leaves the client open.
func (s *Store) Close() error {
	s.poller.Wait()
	s.few.Close()
	return nil
}
