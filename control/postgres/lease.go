package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/control/postgres/internal/queries"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	// leaseLife is how long a lease lasts without being prolonged, by the clock of the
	// database. A waiting process takes over within this time and leaseEvery.
	leaseLife = 2 * time.Second
	// leaseEvery is the time between two attempts to get or prolong a lease.
	leaseEvery = 500 * time.Millisecond
)

// errLost ends work whose lease was not prolonged in time, or belongs to another
// process.
var errLost = errors.New("the lease was lost")

// Hold runs work while this session has the lease, and waits while another one has it.
// It returns when ctx ends, which is not an error. When the lease is lost, Hold ends
// the work's context, waits for the work, and runs it again with the next lease. Work
// that ends by itself ends Hold, with its error.
func (s *Session) Hold(ctx context.Context, lease string, work func(context.Context) error) error {
	held := s.metrics.held.WithLabelValues(lease)
	held.Set(0)
	heir := true // a process that starts inherits the lease of its ended predecessor in the same place
	for failing := false; ; {
		asked := time.Now()
		token, err := s.acquire(ctx, lease, heir)
		heir = heir && err != nil
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			s.log.Warn("cannot ask for the lease, trying again", "lease", lease, "error", err)
		case err == nil && token != 0:
			s.log.Info("has the lease", "lease", lease, "token", token)
			s.metrics.token.WithLabelValues(lease).Set(float64(token))
			held.Set(1)
			err := s.lead(ctx, lease, token, asked.Add(leaseLife), work)
			held.Set(0)
			if !errors.Is(err, errLost) {
				return err
			}
			s.log.Warn("lost the lease, waiting for it", "lease", lease, "token", token)
			continue
		}
		failing = err != nil
		// The pauses are drawn, so that waiting processes do not ask at the same
		// moment.
		if !wait.For(ctx, leaseEvery*3/4+rand.N(leaseEvery/2)) {
			return nil
		}
	}
}

// acquire gives the token of the lease, 0 if another process has the lease.
func (s *Session) acquire(ctx context.Context, lease string, heir bool) (token int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseLife)
	defer cancel()
	token, err = s.cluster.q.TakeLease(ctx, queries.TakeLeaseParams{Name: lease, Holder: s.self.ID, Session: s.nonce,
		Seconds: leaseLife.Seconds(), Heir: heir})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("acquire lease %s: %w", lease, err)
	}
	return token, nil
}

// lead does the work until the lease is lost, which is errLost, or ctx ends. The time
// of the lease counts from before the call, so that here it never lasts longer than in
// the database.
func (s *Session) lead(ctx context.Context, lease string, token int64, until time.Time, work func(context.Context) error) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- work(working) }()
	defer s.release(lease)
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return <-done
		case <-tick.C:
		}
		asked := time.Now()
		bounded, cancel := context.WithDeadline(ctx, until)
		is, err := s.acquire(bounded, lease, false)
		cancel()
		switch {
		case err == nil && is == token:
			until = asked.Add(leaseLife)
		case ctx.Err() == nil && (err == nil || !time.Now().Before(until)):
			stop()
			<-done
			return errLost
		}
	}
}

// release gives the lease to others at once, if this process still has it.
func (s *Session) release(lease string) {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	if err := s.cluster.q.EndLease(ctx, queries.EndLeaseParams{Name: lease, Session: s.nonce}); err != nil {
		s.log.Warn("cannot release the lease; it will expire", "lease", lease, "error", err)
	}
}
