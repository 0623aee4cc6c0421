package projections

import (
	"context"
	"sync"

	"github.com/tunnox-net/tunnox/domain"
)

// Until is a log that ends at a position, for read models of the past. The end can be
// moved forward.
type Until struct {
	log Log

	mu    sync.Mutex
	end   domain.Position // guarded by mu
	moved chan struct{}   // guarded by mu; closed and replaced when end moves
}

// NewUntil gives the log up to end.
func NewUntil(log Log, end domain.Position) *Until {
	return &Until{log: log, end: end, moved: make(chan struct{})}
}

// MoveTo moves the end forward, never back.
func (u *Until) MoveTo(end domain.Position) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if end <= u.end {
		return
	}
	u.end = end
	close(u.moved)
	u.moved = make(chan struct{})
}

func (u *Until) state() (domain.Position, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.end, u.moved
}

// ReadAll implements [Log].
func (u *Until) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	end, _ := u.state()
	if end <= after {
		return nil, ctx.Err()
	}
	return u.log.ReadAll(ctx, after, int(min(int64(limit), int64(end-after))))
}

// Wait implements [Log].
func (u *Until) Wait(ctx context.Context, after domain.Position) error {
	for {
		end, moved := u.state()
		if end > after {
			return u.log.Wait(ctx, after)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
