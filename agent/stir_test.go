package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// asleep is a link that stops to answer, as one whose NAT has forgotten it.
type asleep struct {
	transport.Session
	dead *atomic.Bool
}

func (a asleep) Ping(ctx context.Context) (time.Duration, error) {
	if a.dead.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return a.Session.Ping(ctx)
}

// After a sleep or a move a dead session is replaced within 5 s, and a live one stays.
func TestAfterASleepSessionsAreChecked(t *testing.T) {
	stirred := make(chan struct{})
	var dead atomic.Bool
	var dials atomic.Int32
	s := newScript(t, func(c *Config) {
		c.Stirred, c.Sessions = stirred, 1
		dial := c.Dial
		c.Dial = func(ctx context.Context, server string) (transport.Session, error) {
			dials.Add(1)
			link, err := dial(ctx, server)
			if err != nil {
				return nil, err
			}
			return asleep{link, &dead}, nil
		}
	})
	stirred <- struct{}{}
	if _, err := s.link.Ping(pace.Within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	first := s.link
	dead.Store(true)
	watch := pace.Measure(t)
	start := time.Now()
	stirred <- struct{}{}
	s.welcome(600000001)
	dead.Store(false)
	if took := time.Since(start); took > watch.Allow(5*time.Second) {
		t.Errorf("back after %v", took)
	}
	select {
	case <-first.Done():
	case <-time.After(pace.Guard):
		t.Error("the dead session stays")
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials for two sessions", n)
	}
	stirred <- struct{}{}
	stirred <- struct{}{} // by then the sessions were listed
	if _, err := s.link.Ping(pace.Within(t, 10*time.Second)); err != nil {
		t.Errorf("a live session was ended: %v", err)
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials: a live session was replaced", n)
	}
}
