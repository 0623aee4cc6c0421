package postgres

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// heldBy gives who has the only lease, and its token.
func heldBy(t testing.TB, c *Cluster) (id string, token int64) {
	t.Helper()
	leases, err := c.q.Leases(t.Context())
	must(t, err)
	if len(leases) != 1 {
		return "", 0
	}
	return leases[0].Holder, leases[0].Token
}

func TestALeaseChangesHandsAtOnceWhenItIsGivenBack(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	a := hold(t, c, "a")
	a.begins(t)
	b := hold(t, c, "b")
	for range 20 {
		time.Sleep(leaseEvery / 10)
		b.waits(t)
	}
	if id, token := heldBy(t, c); id != "a" || token != 1 {
		t.Errorf("%s has it with token %d", id, token)
	}
	must(t, a.stop())
	t.Logf("taken over after an orderly end in %v", b.begins(t))
	if id, token := heldBy(t, c); id != "b" || token != 2 {
		t.Errorf("%s has it with token %d", id, token)
	}
}

// A session that cannot reach the database stops working before another begins,
// and does not work again under its old token.
func TestALeaseThatIsNotProlongedIsLostHereFirst(t *testing.T) {
	t.Parallel()
	url := database(t)
	cut := openAt(t, url)
	a := cut.Begin(ControlPlane{ID: "a"}, nil, nil)
	var working atomic.Bool
	began := make(chan struct{}, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- a.Hold(ctx, "relay", func(ctx context.Context) error {
			working.Store(true)
			began <- struct{}{}
			<-ctx.Done()
			working.Store(false)
			return nil
		})
	}()
	<-began
	c := openAt(t, url)
	b := c.Begin(ControlPlane{ID: "b"}, nil, nil)
	took := make(chan time.Duration, 1)
	away := time.Now()
	cut.Close() // from now on every question of a fails
	var both atomic.Bool
	bctx, bcancel := context.WithCancel(t.Context())
	other := make(chan error, 1)
	go func() {
		other <- b.Hold(bctx, "relay", func(ctx context.Context) error {
			both.Store(working.Load())
			took <- time.Since(away)
			<-ctx.Done()
			return nil
		})
	}()
	select {
	case d := <-took:
		t.Logf("taken over from one that is gone in %v", d)
		if d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
	case <-time.After(limit):
		t.Fatal("not taken over")
	}
	if both.Load() {
		t.Error("the work began while the one before still worked")
	}
	if id, token := heldBy(t, c); id != "b" || token != 2 {
		t.Errorf("%s has it with token %d", id, token)
	}
	cancel()
	bcancel()
	must(t, errors.Join(<-done, <-other))
}

func TestWorkThatEndsByItselfIsTold(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	fault := errors.New("broken")
	s := c.Begin(ControlPlane{ID: "a"}, nil, nil)
	if err := s.Hold(t.Context(), "relay", func(context.Context) error { return fault }); !errors.Is(err, fault) {
		t.Errorf("got the error %v, want %v", err, fault)
	}
	hold(t, c, "b").begins(t) // the lease was given back
}

// Of many that start at once one has the lease.
func TestOneOfManyHasALease(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	began := make(chan *Session, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 10)
	for i := range 10 {
		s := c.Begin(ControlPlane{ID: string(rune('a' + i))}, nil, nil)
		go func() {
			done <- s.Hold(ctx, "relay", func(ctx context.Context) error {
				began <- s
				<-ctx.Done()
				return nil
			})
		}()
	}
	<-began
	time.Sleep(2 * leaseLife) // prolonged twice over
	if len(began) != 0 {
		t.Errorf("%d more have it", len(began))
	}
	if _, token := heldBy(t, c); token != 1 {
		t.Errorf("its token is %d", token)
	}
	cancel()
	for range 10 {
		must(t, <-done)
	}
}

// A control plane that was killed and starts again does not wait for its own
// lease to end, and what it was before has lost it.
func TestARestartedHolderTakesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	before := hold(t, c, "a")
	before.begins(t)
	after := hold(t, c, "a")
	if took := after.begins(t); took > leaseLife/2 {
		t.Errorf("it waited %v", took)
	}
	if id, token := heldBy(t, c); id != "a" || token != 2 {
		t.Errorf("%s has it with token %d", id, token)
	}
	time.Sleep(2 * leaseEvery)
	before.waits(t) // it was no heir any more
	if _, token := heldBy(t, c); token != 2 {
		t.Errorf("the token is %d: they take it from each other", token)
	}
}

func TestControlPlanesSeeEachOther(t *testing.T) {
	t.Parallel()
	c := openAt(t, database(t))
	a := hold(t, c, "control-a")
	a.begins(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- a.Show(ctx) }()
	b := c.Begin(ControlPlane{ID: "control-b", API: "127.0.0.1:9000", State: "127.0.0.1:50051", Version: "1"}, nil, nil)
	go func() { done <- b.Show(ctx) }()
	var all []ControlPlane
	for end := time.Now().Add(limit); len(all) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		all, err = c.ControlPlanes(t.Context())
		must(t, err)
	}
	if len(all) != 2 || all[0].ID != "control-a" || len(all[0].Leases) != 1 || all[0].Leases[0] != (Held{"relay", 1}) {
		t.Fatalf("%+v", all)
	}
	if b := all[1]; b.API != "127.0.0.1:9000" || b.State != "127.0.0.1:50051" || b.Version != "1" || b.Since.IsZero() || b.Seen.Before(b.Since) || len(b.Leases) != 0 {
		t.Errorf("%+v", b)
	}
	cancel()
	must(t, errors.Join(<-done, <-done))
	if left, err := c.ControlPlanes(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}
