package eventstore_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
)

// The relay notices a log that was rolled back, also one that has since grown beyond
// its old end. It makes followers begin again only when they can.
func TestRelayBeginsAnewWhenTheLogWasTakenBack(t *testing.T) {
	for _, grown := range []int{0, 1, 2, 20} {
		t.Run(fmt.Sprintf("and grew by %d", grown), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, f := eventstoretest.NewMemory(), &feed{}
				write(t, s, 3)
				restore := s.Backup()
				write(t, s, 2)
				settled := make(chan struct{})
				stop := relay(t, s, f, eventstore.RelayOptions{Settle: func(ctx context.Context) error {
					select {
					case <-settled:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}})
				defer stop()
				synctest.Wait()
				time.Sleep(3 * time.Second)
				var epoch string
				f.do(func() {
					if epoch = f.epoch; epoch == "" || f.resets != 0 {
						t.Errorf("a feed of epoch %q after %d resets", epoch, f.resets)
					}
				})
				restore()
				write(t, s, grown)
				time.Sleep(3 * time.Second)
				f.do(func() {
					if f.resets != 0 || f.epoch != epoch {
						t.Error("followers were told before they could take a snapshot")
					}
				})
				close(settled)
				time.Sleep(3 * time.Second)
				f.do(func() {
					if f.resets != 1 || f.epoch == epoch || f.epoch == "" {
						t.Errorf("%d resets, epoch %q behind %q", f.resets, f.epoch, epoch)
					}
				})
				write(t, s, 4)
				time.Sleep(time.Second)
				f.dense(t, domain.Position(4+grown), domain.Position(7+grown))
			})
		})
	}
}

// A flush is not a rollback of the log: followers that miss nothing continue.
func TestAFlushedFeedIsOfTheSameEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		stop := relay(t, s, f, eventstore.RelayOptions{}) // of an empty log
		write(t, s, 3)
		time.Sleep(3 * time.Second)
		var epoch string
		f.do(func() { epoch = f.epoch })
		for _, again := range []bool{false, true} { // by the same relay, by another one
			if again {
				stop()
				stop = relay(t, s, f, eventstore.RelayOptions{})
			}
			f.do(f.flush)
			time.Sleep(3 * time.Second)
			f.do(func() {
				if epoch == "" || f.epoch != epoch || f.resets != 0 {
					t.Errorf("epoch %q behind %q, %d resets", f.epoch, epoch, f.resets)
				}
			})
		}
		stop()
	})
}

// Commands are decided on the present log, not on records that were acknowledged and
// lost.
func TestCommandsAfterTheLogWasTakenBack(t *testing.T) {
	s := eventstoretest.NewMemory()
	e := start(t, s, eventstore.ExecutorOptions{})
	do := func(c domain.Command) domain.Receipt {
		t.Helper()
		r, err := e.Submit(t.Context(), submission(c))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	do(domain.CreateUser{ID: 1, Username: "ann", Email: "ann@example.org"})
	restore := s.Backup()
	do(domain.SetUserEnabled{ID: 1, Enabled: false})
	do(domain.SetUserEnabled{ID: 1, Enabled: true})
	do(domain.SetUserEnabled{ID: 1, Enabled: false})
	restore()
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := do(domain.SetUserEnabled{ID: 1, Enabled: false}); r.Position != head.Position+1 || r.Version != 2 {
		t.Errorf("a user who is enabled in the log was not disabled: %d at %d", r.Version, r.Position)
	}
	do(domain.SetUserEnabled{ID: 1, Enabled: true})
}

// If the lost part was replaced by another one of the same length, versions show
// nothing. Continuity shows it.
func TestContinuityForgetsALogThatWasTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := eventstoretest.NewMemory()
		forgotten := 0
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- eventstore.NewContinuity(s, nil, nil, func() { forgotten++ }).Run(ctx) }()
		look := func(want int, what string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if forgotten != want {
				t.Errorf("%s: forgotten %d times, want %d", what, forgotten, want)
			}
		}
		look(0, "an empty log")
		write(t, s, 3)
		look(0, "a log that grows")
		restore := s.Backup()
		write(t, s, 2)
		look(0, "a log that grows")
		restore()
		look(1, "a shorter log")
		write(t, s, 2)
		look(1, "a log that grows again")
		restore()
		write(t, s, 2)
		look(2, "another log of the same length")
		restore()
		write(t, s, 20)
		look(3, "another log that is longer")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A waiter for a position after the end of a rolled back log is told of the records
// that come there.
func TestSignalGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s eventstore.Signal
		s.Raise(10)
		end := domain.Position(4)
		poll := func(context.Context) (domain.Position, error) { return end, nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Wait(ctx, 10, nil, poll); err == nil || s.Reached() != 4 {
			t.Errorf("the log is known to be at %d, %v; want 4", s.Reached(), err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Wait(ctx, 7, nil, poll); err == nil {
			t.Error("a log that ends at 4 is beyond 7")
		}
		end = 8
		if err := s.Wait(t.Context(), 7, nil, poll); err != nil {
			t.Error(err)
		}
	})
}
