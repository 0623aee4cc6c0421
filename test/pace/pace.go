// Package pace measures how slow the machine is while a test runs. So a test can bound
// how long something takes and still pass beside other work.
//
// A second of work is the time in which this process would compute for a second if it
// had a core for itself. On a calm machine it is a second; beside four busy loops on
// two cores it is about three. A limit of work fails a test when the code became
// slower, and not when it only had to wait for a core.
//
// Its limits: waiting for a disk or for another program's timer is not measured, and a
// program that keeps the cores busy itself makes the measured slowness larger. Where a
// test can count, or run in virtual time (testing/synctest), that is better.
package pace

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Guard bounds waits that should never be so long. It bounds how long a test can hang
// and says nothing about speed. What must be fast is compared with [Watch.Allow].
const Guard = time.Minute

const (
	// Measuring takes 4 % of a core (sampleEvery and sampleWork). A sample is longer
	// than the slice that the kernel gives to a process that has slept (3 ms), so its
	// later parts wait for a core as all other work does.
	sampleEvery = 200 * time.Millisecond
	sampleWork  = 8 * time.Millisecond

	chunkRounds = 300_000 // about a third of a millisecond: on any machine some chunks run without interruption
)

// A sampler runs while it has a holder. There is one for the process.
var shared sampler

type sampler struct {
	life    sync.Mutex    // held while the sampler begins and ends, so that only one runs at a time
	holders int           // guarded by life
	stop    chan struct{} // guarded by life; closed when there is no holder any more
	ended   chan struct{} // guarded by life

	mu       sync.Mutex
	chunk    time.Duration // guarded by mu; the shortest time of a chunk so far: that chunk had a core for itself
	slowness float64       // guarded by mu; of the last sample, 1 or more
	work     time.Duration // guarded by mu; the time of work that passed until at
	at       time.Time     // guarded by mu
}

func (s *sampler) hold() {
	s.life.Lock()
	defer s.life.Unlock()
	if s.holders++; s.holders > 1 {
		return
	}
	s.mu.Lock()
	s.at, s.slowness = time.Now(), max(s.slowness, 1)
	s.mu.Unlock()
	s.stop, s.ended = make(chan struct{}), make(chan struct{})
	go s.run(s.stop, s.ended)
}

func (s *sampler) release() {
	s.life.Lock()
	defer s.life.Unlock()
	if s.holders--; s.holders == 0 {
		close(s.stop)
		<-s.ended
	}
}

func (s *sampler) run(stop, ended chan struct{}) {
	defer close(ended)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.sample()
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// sample computes for a while, and compares the time with the shortest so far.
func (s *sampler) sample() {
	began := time.Now()
	fastest, chunks := time.Duration(0), 0
	for chunks = 0; chunks < int(sampleWork/(300*time.Microsecond)); chunks++ {
		from := time.Now()
		compute()
		if took := time.Since(from); fastest == 0 || took < fastest {
			fastest = took
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chunk == 0 || fastest < s.chunk {
		s.chunk = fastest
	}
	if s.chunk <= 0 { // the clock stands still, as in a bubble of testing/synctest
		return
	}
	s.slowness = max(1, float64(now.Sub(began))/float64(time.Duration(chunks)*s.chunk))
	s.work += time.Duration(float64(now.Sub(s.at)) / s.slowness)
	s.at = now
}

// now takes a separate sample.
func (s *sampler) now() float64 {
	s.sample()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowness
}

var sink atomic.Uint64 // keeps the compiler from removing the computation

func compute() {
	x := uint64(88172645463325252)
	for range chunkRounds {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	sink.Store(x)
}

func (s *sampler) spent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.work + time.Duration(float64(time.Since(s.at))/s.slowness)
}

// Watch measures from [Start] to [Watch.Stop].
type Watch struct {
	began time.Time
	from  time.Duration
}

// Start begins to measure.
func Start() *Watch {
	shared.hold()
	return &Watch{time.Now(), shared.spent()}
}

// Stop ends the measurement. Call it once.
func (w *Watch) Stop() { shared.release() }

// Work gives the time of work that has passed since the start.
func (w *Watch) Work() time.Duration { return shared.spent() - w.from }

// Slowness gives how many times longer than on a calm machine everything has taken
// since the start: 1 or more.
func (w *Watch) Slowness() float64 {
	work := w.Work()
	if work <= 0 {
		return 1
	}
	return max(1, float64(time.Since(w.began))/float64(work))
}

// Allow gives how long something may have taken since the start if it takes d on a calm
// machine.
func (w *Watch) Allow(d time.Duration) time.Duration {
	return time.Duration(float64(d) * w.Slowness())
}

// Now gives how many times longer than on a calm machine something takes at this
// moment: 1 or more.
func Now() float64 {
	w := Start()
	defer w.Stop()
	return shared.now()
}

// Measure starts a watch and stops it at the end of the test.
func Measure(t testing.TB) *Watch {
	t.Helper()
	w := Start()
	t.Cleanup(w.Stop)
	return w
}

// ErrSpent is the cause of the end of a context of [Within].
var ErrSpent = errors.New("pace: the time of work is spent")

// Within gives a context that ends after so much time of work, or with the test.
func Within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	w := Start()
	go func() {
		defer close(ended)
		defer w.Stop()
		for {
			left := d - w.Work()
			if left <= 0 {
				cancel(ErrSpent)
				return
			}
			timer := time.NewTimer(left) // the earliest possible end
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	}()
	t.Cleanup(func() {
		cancel(context.Canceled)
		<-ended
	})
	return ctx
}

// Poll calls ask until it gives no error, for d of work at most, and gives the last
// error. Its pauses grow to longest. It measures only after it has waited for half of
// d.
func Poll(d, longest time.Duration, ask func() error) error {
	pause := min(time.Millisecond, longest)
	next := func() { time.Sleep(pause); pause = min(2*pause, longest) }
	for half := time.Now().Add(d / 2); ; next() {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(half) {
			break
		}
	}
	w := Start()
	defer w.Stop()
	for ; ; next() {
		over := w.Work() > d-d/2 // before ask: its last answer comes after the time is over
		err := ask()
		if err == nil || over {
			return err
		}
	}
}

var errNotYet = errors.New("not yet")

// Until calls is until it gives true, for d of work at most, and reports whether it
// did.
func Until(d, longest time.Duration, is func() bool) bool {
	return Poll(d, longest, func() error {
		if is() {
			return nil
		}
		return errNotYet
	}) == nil
}
