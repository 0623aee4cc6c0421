package pace

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busy keeps every core busy with n loops of this process until the end of the test.
func busy(t *testing.T, n int) {
	t.Helper()
	done := make(chan struct{})
	var running sync.WaitGroup
	for range n * runtime.GOMAXPROCS(0) {
		running.Go(func() {
			x := uint64(1)
			for {
				select {
				case <-done:
					return
				default:
				}
				for range 10_000 {
					x ^= x << 13
					x ^= x >> 7
				}
			}
		})
	}
	t.Cleanup(func() { close(done); running.Wait() })
}

func TestBusyCoresAreSeen(t *testing.T) {
	calm := Start()
	time.Sleep(time.Second) // the pause that is measured
	before := calm.Slowness()
	calm.Stop()
	busy(t, 4)
	w := Start()
	time.Sleep(2 * time.Second) // the pause that is measured
	beside := w.Slowness()
	work := w.Work()
	w.Stop()
	t.Logf("%.1f times as long as on a calm machine, and %.1f beside four busy loops a core", before, beside)
	if beside < before*1.5 {
		t.Errorf("the machine seems %.1f times slow beside busy loops, and %.1f without", beside, before)
	}
	if work <= 0 || work > 2500*time.Millisecond {
		t.Errorf("%v of work", work)
	}
	if allowed := w.Allow(time.Second); allowed < time.Second {
		t.Errorf("a second may take %v", allowed)
	}
}

func TestLimitsOfWorkEnd(t *testing.T) {
	ctx := Within(t, 100*time.Millisecond)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, ErrSpent) {
		t.Errorf("got the error %v, want %v", err, ErrSpent)
	}
	asked, fault := 0, errors.New("not yet")
	if err := Poll(100*time.Millisecond, time.Millisecond, func() error { asked++; return fault }); !errors.Is(err, fault) || asked < 2 {
		t.Errorf("asked %d times, got the error %v, want %v", asked, err, fault)
	}
	asked = 0
	if err := Poll(time.Minute, time.Millisecond, func() error {
		if asked++; asked < 3 {
			return fault
		}
		return nil
	}); err != nil || asked != 3 {
		t.Errorf("asked %d times, got the error %v", asked, err)
	}
}

func TestManyShareOneSampler(t *testing.T) {
	var running sync.WaitGroup
	for range 20 {
		running.Go(func() {
			w := Start()
			time.Sleep(10 * time.Millisecond) // the pause that is measured
			if w.Work() < 0 || w.Slowness() < 1 {
				t.Errorf("%v of work at a slowness of %f", w.Work(), w.Slowness())
			}
			w.Stop()
		})
	}
	running.Wait()
	if shared.holders != 0 {
		t.Errorf("%d hold the sampler", shared.holders)
	}
}
