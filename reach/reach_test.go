package reach_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ways are carriers whose delays and faults a test sets, in virtual time. Their sessions
// are real ones in memory.
type ways struct {
	t     *testing.T
	mu    sync.Mutex
	delay map[string]time.Duration
	fault map[string]error
	begun []string
	live  []transport.Session
}

func newWays(t *testing.T) *ways {
	return &ways{t: t, delay: map[string]time.Duration{}, fault: map[string]error{}}
}

func (w *ways) carrier(scheme string) transport.DialFunc {
	return func(ctx context.Context, _ string, _ transport.DialConfig) (transport.Session, error) {
		w.mu.Lock()
		w.begun = append(w.begun, scheme)
		delay, fault := w.delay[scheme], w.fault[scheme]
		w.mu.Unlock()
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if fault != nil {
			return nil, fault
		}
		a, b := transport.Pipe()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.live = append(w.live, a, b)
		return named{a, scheme}, nil
	}
}

// named is a session that a test can tell from others.
type named struct {
	transport.Session
	scheme string
}

func (w *ways) dialer(network func() string) *reach.Dialer {
	w.t.Helper()
	d, err := reach.New(reach.Config{Network: network, Order: []string{"one", "two", "three"}, Carriers: transport.Carriers{
		"one": w.carrier("one"), "two": w.carrier("two"), "three": w.carrier("three"), "other": w.carrier("other")}})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// wins dials, and wants the carrier that wins and those that were begun.
func (w *ways) wins(d *reach.Dialer, server, winner string, begun ...string) time.Duration {
	w.t.Helper()
	w.mu.Lock()
	w.begun = nil
	w.mu.Unlock()
	start := time.Now()
	s, err := d.Dial(context.Background(), server)
	took := time.Since(start)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // the losers have ended
	if got := s.(named).scheme; got != winner {
		w.t.Errorf("%s won, want %s", got, winner)
	}
	w.mu.Lock()
	if !slices.Equal(w.begun, begun) {
		w.t.Errorf("begun: %v, want %v", w.begun, begun)
	}
	for _, s := range w.live {
		select {
		case <-s.Done():
		default:
			defer s.Close()
		}
	}
	w.mu.Unlock()
	_ = s.Close()
	return took
}

const server = "tunnox.test:8080"

func TestTheFastestCarrierWinsAndIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		here := "home"
		d := w.dialer(func() string { return here })
		w.delay["one"], w.delay["two"], w.delay["three"] = time.Hour, 100*time.Millisecond, 10*time.Millisecond
		w.wins(d, server, "two", "one", "two") // the third would have begun when the second was through
		// A known carrier has time: nothing else is begun, and the slow first is not waited for.
		w.delay["two"] = time.Second
		if took := w.wins(d, server, "two", "two"); took != time.Second {
			t.Errorf("took %v", took)
		}
		// Elsewhere it counts for nothing.
		here = "train"
		w.wins(d, server, "three", "one", "two", "three")
		here = "home"
		w.wins(d, server, "two", "two")
	})
}

func TestAFailedCarrierIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		d := w.dialer(func() string { return "" })
		w.fault["one"] = errors.New("refused")
		if took := w.wins(d, server, "two", "one", "two"); took != 0 {
			t.Errorf("took %v", took)
		}
		// What worked before and does not now holds nobody up either.
		w.fault["two"], w.fault["one"] = errors.New("gone"), nil
		if took := w.wins(d, server, "one", "two", "one"); took != 0 {
			t.Errorf("took %v", took)
		}
		tries := d.Tries()
		if len(tries) != 2 || tries[0].Scheme != "one" || tries[0].Err != nil || tries[1].Scheme != "two" || tries[1].Err.Error() != "gone" {
			t.Errorf("tries: %v", tries)
		}
	})
}

// A silent carrier is never given up: each dial tries all.
func TestACarrierThatHangsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		d := w.dialer(func() string { return "" })
		for _, only := range []string{"three", "one", "two", "one"} {
			for _, scheme := range []string{"one", "two", "three"} {
				w.delay[scheme] = time.Hour
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := d.Dial(ctx, server)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			w.delay[only] = 0
			s, err := d.Dial(t.Context(), server)
			if err != nil || s.(named).scheme != only {
				t.Fatalf("%v, want a session over %s", err, only)
			}
			_ = s.Close()
		}
		synctest.Wait()
	})
}

func TestEveryReasonIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		d := w.dialer(func() string { return "" })
		unverified := errors.New("no such pin")
		w.fault["one"], w.fault["two"], w.fault["three"] = errors.New("refused"), unverified, errors.New("refused")
		_, err := d.Dial(t.Context(), server)
		if !errors.Is(err, unverified) || !strings.Contains(err.Error(), "over one: refused; over two: no such pin; over three: refused") {
			t.Error(err)
		}
		w.fault["two"] = errors.New("refused")
		if _, err = d.Dial(t.Context(), server); err == nil || err.Error() != "refused" {
			t.Error(err)
		}
	})
}

func TestAnAddressWithASchemeIsNotRaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		d := w.dialer(func() string { return "" })
		w.wins(d, "other://"+server, "other", "other")
		if _, err := d.Dial(t.Context(), "none://"+server); !errors.Is(err, transport.ErrScheme) {
			t.Error(err)
		}
	})
}

// Who gives up leaves nothing behind, and says nothing about the carriers.
func TestADialThatIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWays(t)
		d := w.dialer(func() string { return "" })
		w.delay["one"], w.delay["two"], w.delay["three"] = time.Hour, time.Hour, time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := d.Dial(ctx, server); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		if tries := d.Tries(); len(tries) != 0 {
			t.Errorf("tries: %v", tries)
		}
	})
}

func TestUnknownCarriers(t *testing.T) {
	if _, err := reach.New(reach.Config{Order: []string{"carrier-pigeon"}}); !errors.Is(err, transport.ErrScheme) {
		t.Error(err)
	}
	if _, err := reach.New(reach.Config{}); err == nil {
		t.Error("a dialer without carriers")
	}
}
