package agent

import (
	"context"
	"time"
)

// stirLimit is how long a session may take to answer after the machine has slept or moved.
// Its end and a new session then fit into 5 s.
const stirLimit = 3 * time.Second

// heed checks the sessions whenever the machine has slept or moved, until ctx ends. Without
// that an agent notices a dead session after 15 s. Who waits to try again tries at once.
func (a *Agent) heed(ctx context.Context, stirred <-chan struct{}) {
	for {
		select {
		case <-stirred:
		case <-ctx.Done():
			return
		}
		a.log.Debug("this machine has slept or moved, checking sessions")
		a.stirMu.Lock()
		close(a.stirred)
		a.stirred = make(chan struct{})
		a.stirMu.Unlock()
		for _, s := range a.sessions.list() {
			a.start(func() { a.check(ctx, s) })
		}
	}
}

// check ends a session that does not answer.
func (a *Agent) check(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, stirLimit)
	defer cancel()
	if _, err := s.link.Ping(ctx); err != nil && ctx.Err() != nil {
		s.log.Info("a session does not answer after this machine has slept or moved", "limit", stirLimit)
		s.link.Close()
	}
}

// stir is closed when the machine has slept or moved.
func (a *Agent) stir() <-chan struct{} {
	a.stirMu.Lock()
	defer a.stirMu.Unlock()
	return a.stirred
}
