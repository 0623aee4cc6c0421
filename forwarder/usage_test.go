package forwarder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	log "github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/test/pace"
	counted "github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite"
)

// ledger is a real store behind what may fail.
type ledger struct {
	*counted.Book
	clock *clock
	fault atomic.Pointer[func(context.Context, func() error) error]
}

// clock is the time of ledger and forwarder.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (l *ledger) Report(ctx context.Context, r counted.Report) (answer counted.Answer, err error) {
	report := func() error {
		answer, err = l.Book.Report(ctx, r)
		return err
	}
	if fault := l.fault.Load(); fault != nil {
		if err := (*fault)(ctx, report); err != nil {
			return counted.Answer{}, err
		}
		return answer, nil
	}
	return answer, report()
}

func (l *ledger) breaks(fault func(ctx context.Context, report func() error) error) {
	if fault == nil {
		l.fault.Store(nil)
	} else {
		l.fault.Store(&fault)
	}
}

var errAway = errors.New("away")

// used is what an account has used in this month.
func (l *ledger) used(t testing.TB, account int64) counted.Traffic {
	t.Helper()
	months, err := l.Months(context.Background(), l.clock.now(), account)
	if err != nil {
		t.Fatal(err)
	}
	return months[account]
}

// newCountedWorld is a world whose forwarder reports every 50 ms.
func newCountedWorld(t testing.TB, mode string) (*world, *ledger) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	if _, err := log.Migrate(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &ledger{clock: &clock{}}
	l.Book = counted.NewBook(store, l.clock.now, nil)
	w := newWorld(t, mode)
	w.current().stop()
	w.ledger, w.now = l, l.clock.now
	w.limits = forwarder.Limits{Report: 50 * time.Millisecond}
	w.start()
	return w, l
}

func limitOf(n int64) *int64 { return &n }

// echoed sends so many bytes to an echo and reads them back, in pieces.
func echoed(conn net.Conn, n int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, n))
		sent <- err
	}()
	_, err := io.CopyN(io.Discard, conn, int64(n))
	return errors.Join(err, <-sent)
}

func TestUsageIsLiveAndRightToTheByte(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, l := newCountedWorld(t, mode)
			_, _, m := w.pair(echo(t))
			var want counted.Traffic
			open := connect(t, m.address)
			if err := echoed(open, 100_001); err != nil {
				t.Fatal(err)
			}
			want.Add(counted.Traffic{ToTarget: 100_001, ToSource: 100_001, Streams: 1})
			// The connection is still open.
			eventually(t, "an open connection's bytes are known", func() bool { return l.used(t, w.user) == want })
			live, err := l.Live(t.Context(), l.clock.now(), counted.OfMapping, m.id)
			if err != nil || live[m.id] != 1 {
				t.Errorf("%d streams open, want 1 (%v)", live[m.id], err)
			}
			var running sync.WaitGroup
			for range 20 {
				n := 1 + rand.IntN(50_000)
				want.Add(counted.Traffic{ToTarget: int64(n), ToSource: int64(n), Streams: 1})
				running.Go(func() {
					conn := connect(t, m.address)
					if err := echoed(conn, n); err != nil {
						t.Error(err)
					}
					conn.Close()
				})
			}
			running.Wait()
			open.Close()
			eventually(t, "all that was carried is known", func() bool { return l.used(t, w.user) == want })
			eventually(t, "nothing is open", func() bool {
				live, err := l.Live(t.Context(), l.clock.now(), counted.OfAccount, w.user)
				return err == nil && live[w.user] == 0
			})
			rates, err := l.Rates(t.Context(), l.clock.now())
			if err != nil || rates.Nodes != 1 {
				t.Errorf("rates %+v, %v", rates, err)
			}
			last := connect(t, m.address)
			if err := echoed(last, 77); err != nil {
				t.Fatal(err)
			}
			w.current().stop() // the rest is reported by who ends
			want.Add(counted.Traffic{ToTarget: 77, ToSource: 77, Streams: 1})
			if got := l.used(t, w.user); got != want {
				t.Errorf("after the end of the forwarder %+v are known, want %+v", got, want)
			}
		})
	}
}

// A ledger that fails before or behind counting, or is away, costs nothing and
// counts nothing twice.
func TestUsageIsCountedOnceThroughFailures(t *testing.T) {
	t.Parallel()
	w, l := newCountedWorld(t, "memory")
	_, _, m := w.pair(echo(t))
	var failures atomic.Int64
	l.breaks(func(_ context.Context, report func() error) error {
		switch rand.IntN(3) {
		case 0:
			failures.Add(1)
			return errAway
		case 1:
			failures.Add(1)
			return errors.Join(report(), errAway) // the answer is lost
		}
		return report()
	})
	var want counted.Traffic
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		n := 1 + rand.IntN(20_000)
		conn := connect(t, m.address)
		if err := echoed(conn, n); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		want.Add(counted.Traffic{ToTarget: int64(n), ToSource: int64(n), Streams: 1})
		if got := l.used(t, w.user); got.Bytes() > want.Bytes() {
			t.Fatalf("%+v were counted, %+v carried", got, want)
		}
	}
	l.breaks(nil)
	eventually(t, "all is known", func() bool { return l.used(t, w.user) == want })
	t.Logf("%d failures, %d streams", failures.Load(), want.Streams)
	if failures.Load() == 0 {
		t.Error("nothing failed")
	}
}

// refused tells that a new connection comes to nothing.
func refused(t testing.TB, m mapping) bool {
	t.Helper()
	conn, err := net.Dial("tcp", m.address)
	if err != nil {
		return true // it was reset before Dial had looked
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pace.Guard))
	return roundTrip(conn, "hello") != nil
}

func TestTrafficLimitEndsStreamsAndARaiseLetsThemThrough(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, l := newCountedWorld(t, mode)
			const limit = 200_000
			w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(limit)}})
			_, _, m := w.pair(echo(t))
			_, _, other := w.pair(echo(t))
			waiting := connect(t, other.address) // of the same account, on another mapping
			if err := roundTrip(waiting, "hello"); err != nil {
				t.Fatal(err)
			}
			conn := connect(t, m.address)
			err := echoed(conn, 2*limit)
			if err == nil {
				t.Fatal("twice the limit went through")
			}
			if _, err := waiting.Read(make([]byte, 1)); err == nil {
				t.Error("another stream of the account goes on")
			}
			eventually(t, "what was used is known", func() bool { return l.used(t, w.user).Bytes() >= limit })
			got := l.used(t, w.user).Bytes()
			t.Logf("%d bytes went through, the limit is %d", got, limit)
			if got > limit+100_000 {
				t.Errorf("%d bytes went through, the limit is %d", got, limit)
			}
			if !refused(t, m) {
				t.Error("a new stream went through")
			}
			if got := w.refused("quota_traffic"); got == 0 {
				t.Error("it was refused for another reason")
			}
			watch := pace.Measure(t)
			began := time.Now()
			w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(10 * limit)}})
			eventually(t, "a raise lets streams through", func() bool { return !refused(t, m) })
			took := time.Since(began)
			t.Logf("a raise let streams through after %v", took)
			if took > watch.Allow(5*time.Second) {
				t.Errorf("a raise let streams through after %v", took)
			}
			// Lowered again it ends what is there, without a byte.
			conn = connect(t, m.address)
			if err := roundTrip(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(limit)}})
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("a stream outlives the lowering of the limit")
			}
		})
	}
}

// What was used before, or elsewhere, counts from the first stream on.
func TestTrafficUsedElsewhereCounts(t *testing.T) {
	t.Parallel()
	w, l := newCountedWorld(t, "memory")
	const limit = 100_000
	w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(limit)}})
	_, _, m := w.pair(echo(t))
	conn := connect(t, m.address)
	if err := roundTrip(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	elsewhere := counted.Report{Reporter: "other", Node: "node-002", Sequence: 1,
		Lines: []counted.Line{{Mapping: m.id, Account: w.user, Traffic: counted.Traffic{ToTarget: limit}}}}
	if _, err := l.Book.Report(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlives what was used elsewhere")
	}
	w.current().stop()
	w.start() // knows nothing
	eventually(t, "the agents are back", func() bool { n, _ := w.current().Load(); return n == 2 })
	w.listening(m)
	if !refused(t, m) {
		t.Error("the first stream at another forwarder went through")
	}
}

func TestNextMonthWorksAgain(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("ledger away %v", away), func(t *testing.T) {
			t.Parallel()
			w, l := newCountedWorld(t, "memory")
			const limit = 50_000
			w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(limit)}})
			_, _, m := w.pair(echo(t))
			conn := connect(t, m.address)
			if echoed(conn, 2*limit) == nil {
				t.Fatal("twice the limit went through")
			}
			eventually(t, "what was used is known", func() bool { return l.used(t, w.user).Bytes() >= limit })
			if !refused(t, m) {
				t.Error("a new stream went through")
			}
			if away {
				l.breaks(func(context.Context, func() error) error { return errAway })
			}
			l.clock.ahead.Store(int64(time.Until(counted.NextMonth(time.Now())) + time.Hour))
			eventually(t, "the next month works", func() bool { return !refused(t, m) })
			if echoed(connect(t, m.address), 2*limit) == nil {
				t.Error("twice the limit went through in the next month")
			}
		})
	}
}

// While nobody answers, the forwarder decides on what it knows, and streams do
// not wait for it.
func TestLedgerAwayHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w, l := newCountedWorld(t, "memory")
	back := make(chan struct{})
	l.breaks(func(ctx context.Context, _ func() error) error {
		select {
		case <-ctx.Done():
		case <-back:
		}
		return errAway
	})
	const limit = 100_000
	w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MonthlyTrafficLimit: limitOf(limit), TotalBandwidthLimit: limitOf(100 << 20)}})
	_, _, m := w.pair(echo(t))
	began := time.Now()
	conn := connect(t, m.address)
	if err := roundTrip(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	t.Logf("the first stream waited %v", time.Since(began))
	if echoed(conn, 2*limit) == nil {
		t.Error("twice the limit went through")
	}
	if !refused(t, m) {
		t.Error("a new stream went through")
	}
	close(back)
	l.breaks(nil)
	eventually(t, "what was counted meanwhile is reported", func() bool { return l.used(t, w.user).Bytes() >= limit })
}

func TestBandwidthIsSharedByMappingsAndFollowsTheQuota(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			w, l := newCountedWorld(t, mode)
			const rate = 400_000
			set := func(limit *int64) {
				w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{TotalBandwidthLimit: limit}})
			}
			set(limitOf(rate))
			var running sync.WaitGroup
			for range 2 {
				_, _, m := w.pair(echo(t))
				conn := connect(t, m.address)
				running.Go(func() {
					for {
						if _, err := conn.Write(make([]byte, 8<<10)); err != nil {
							return
						}
					}
				})
				running.Go(func() { io.Copy(io.Discard, onlyReader{conn}) })
			}
			moved := func() (n int64) {
				for _, m := range w.current().Traffic() {
					n += m.ToTarget + m.ToSource
				}
				return n
			}
			eventually(t, "bytes flow", func() bool { return moved() > rate/2 })
			before, began := moved(), time.Now()
			eventually(t, "a second's bytes flow", func() bool { return moved()-before > rate })
			got := float64(moved()-before) / time.Since(began).Seconds()
			t.Logf("%.0f bytes a second, the limit is %d", got, rate)
			if got > 1.3*rate {
				t.Errorf("%.0f bytes a second went through, the limit is %d", got, rate)
			}
			set(nil)
			before = moved()
			eventually(t, "without a limit much flows", func() bool { return moved()-before > 20*rate })
			set(limitOf(0))
			eventually(t, "with a limit of 0 nothing is open", func() bool { _, streams := w.current().Load(); return streams == 0 })
			running.Wait()
			eventually(t, "all is known", func() bool { return l.used(t, w.user).Bytes() == moved() })
		})
	}
}

// Connections at another forwarder count, as far as was reported.
func TestConnectionsElsewhereCount(t *testing.T) {
	t.Parallel()
	w, l := newCountedWorld(t, "memory")
	w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{MaxConnectionsPerMapping: limitOf(3)}})
	_, _, m := w.pair(echo(t))
	elsewhere := func(sequence, open int64) {
		_, err := l.Book.Report(t.Context(), counted.Report{Reporter: "other", Node: "node-002", Sequence: sequence,
			Lines: []counted.Line{{Mapping: m.id, Account: w.user, Open: open}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	elsewhere(1, 2)
	first := connect(t, m.address)
	if err := roundTrip(first, "hello"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "2 there and 1 here are 3", func() bool { return refused(t, m) })
	elsewhere(2, 1)
	eventually(t, "1 there and 1 here are 2", func() bool { return !refused(t, m) })
}
