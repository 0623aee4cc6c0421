package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/eventstoretest"
)

// feed is a publisher that keeps what was published, with the contract of a real one.
// It fails when told to.
type feed struct {
	mu         sync.Mutex
	positions  []domain.Position // of records
	last       domain.Place
	some       bool
	epoch      string
	heartbeats int
	resets     int
	fail       func(call string) error
}

func (f *feed) begin(call string) (unlock func(), err error) {
	f.mu.Lock()
	if f.fail != nil {
		err = f.fail(call)
	}
	if err != nil {
		f.mu.Unlock()
	}
	return f.mu.Unlock, err
}

func (f *feed) Last(context.Context) (domain.Place, string, bool, error) {
	unlock, err := f.begin("last")
	if err != nil {
		return domain.Place{}, "", false, err
	}
	defer unlock()
	return f.last, f.epoch, f.some, nil
}

func (f *feed) Publish(_ context.Context, prev domain.Place, records []domain.Record) error {
	unlock, err := f.begin("publish")
	if err != nil {
		return err
	}
	defer unlock()
	for _, r := range records {
		if r.Position != prev.Position+1 {
			return fmt.Errorf("record %d does not follow %d", r.Position, prev.Position)
		}
		prev = domain.PlaceOf(r)
		if !f.some || r.Position > f.last.Position {
			f.positions, f.last, f.some = append(f.positions, r.Position), domain.PlaceOf(r), true
		}
	}
	return nil
}

func (f *feed) Heartbeat(_ context.Context, at domain.Place) error {
	unlock, err := f.begin("heartbeat")
	if err != nil {
		return err
	}
	defer unlock()
	f.heartbeats++
	if !f.some || at.Position >= f.last.Position {
		f.last, f.some = at, true
	}
	return nil
}

func (f *feed) Reset(_ context.Context, epoch string) error {
	unlock, err := f.begin("reset")
	if err != nil {
		return err
	}
	defer unlock()
	f.flush()
	f.epoch = epoch
	f.resets++
	return nil
}

func (f *feed) Name(_ context.Context, epoch string) error {
	unlock, err := f.begin("name")
	if err != nil {
		return err
	}
	defer unlock()
	if f.epoch == "" {
		f.epoch = epoch
	}
	return nil
}

func (f *feed) flush() { f.positions, f.last, f.some, f.epoch = nil, domain.Place{}, false, "" }

func (f *feed) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// dense checks that the feed holds the records from first to last, each once.
func (f *feed) dense(t *testing.T, first, last domain.Position) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	want := first
	for _, p := range f.positions {
		if p != want {
			t.Fatalf("the feed has %v, want %d to %d", f.positions, first, last)
		}
		want++
	}
	if want != last+1 {
		t.Fatalf("the feed has %v, want %d to %d", f.positions, first, last)
	}
}

func write(t *testing.T, s eventstore.Store, n int) {
	t.Helper()
	for range n {
		moveStream(t, s, "user-1")
	}
}

// relay runs a relay until stop.
func relay(t *testing.T, s eventstore.Store, f *feed, options eventstore.RelayOptions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- eventstore.NewRelay(s, f, options).Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("relay: %v", err)
		}
	}
}

func TestRelayCarriesEveryRecordOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		write(t, s, 3)
		stop := relay(t, s, f, eventstore.RelayOptions{Start: func(context.Context) (domain.Position, error) { return 0, nil }})
		synctest.Wait()
		f.dense(t, 1, 3)
		write(t, s, 2)
		synctest.Wait()
		f.dense(t, 1, 5)
		stop()
		// A crash between append and publish: the next relay continues from the feed.
		write(t, s, 4)
		stop = relay(t, s, f, eventstore.RelayOptions{})
		synctest.Wait()
		f.dense(t, 1, 9)
		stop()
	})
}

func TestRelayHeartbeatsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		stop := relay(t, s, f, eventstore.RelayOptions{})
		defer stop()
		time.Sleep(11 * time.Second)
		f.do(func() {
			if f.heartbeats != 6 { // at the start and every 2 s
				t.Errorf("%d heartbeats in 11 s, want 6", f.heartbeats)
			}
		})
	})
}

func TestRelayTriesUntilTheFeedIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		stop := relay(t, s, f, eventstore.RelayOptions{})
		defer stop()
		synctest.Wait()
		attempts := 0
		f.do(func() { f.fail = func(string) error { attempts++; return errors.New("connection refused") } })
		write(t, s, 5)
		time.Sleep(time.Minute)
		f.do(func() {
			if attempts < 10 || attempts > 60 {
				t.Errorf("%d attempts in a minute", attempts)
			}
			f.fail = nil
		})
		time.Sleep(6 * time.Second)
		f.dense(t, 1, 5)
		// Although every second call fails, everything arrives.
		n := 0
		f.do(func() {
			f.fail = func(call string) error {
				if n++; n%2 == 0 {
					return errors.New("reset by peer")
				}
				return nil
			}
		})
		for range 10 {
			write(t, s, 1)
			time.Sleep(time.Second)
		}
		f.do(func() { f.fail = nil })
		time.Sleep(10 * time.Second)
		f.dense(t, 1, 15)
	})
}

func TestRelayStartsAFlushedFeedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		write(t, s, 10)
		stop := relay(t, s, f, eventstore.RelayOptions{Start: func(context.Context) (domain.Position, error) { return 7, nil }})
		defer stop()
		synctest.Wait()
		f.dense(t, 8, 10)
		f.do(f.flush)
		time.Sleep(3 * time.Second) // the relay notices when it is idle
		f.dense(t, 8, 10)
		write(t, s, 1)
		synctest.Wait()
		f.dense(t, 8, 11)
	})
}

func TestRelayEmptiesAFeedThatIsAheadOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		write(t, s, 4)
		f.last, f.some = domain.Place{Position: 9, EventID: domain.EventID{9}}, true // of a log that was lost
		stop := relay(t, s, f, eventstore.RelayOptions{})
		defer stop()
		synctest.Wait()
		write(t, s, 2)
		synctest.Wait()
		f.dense(t, 5, 6)
		f.do(func() {
			if f.resets != 1 {
				t.Errorf("%d resets", f.resets)
			}
		})
	})
}

func TestTwoRelaysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := eventstoretest.NewMemory(), &feed{}
		stopA, stopB := relay(t, s, f, eventstore.RelayOptions{}), relay(t, s, f, eventstore.RelayOptions{})
		synctest.Wait()
		for range 20 {
			write(t, s, 3)
		}
		synctest.Wait()
		f.dense(t, 1, 60)
		stopA()
		write(t, s, 3)
		synctest.Wait()
		f.dense(t, 1, 63)
		stopB()
	})
}
