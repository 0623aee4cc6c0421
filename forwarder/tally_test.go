package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/usage"
)

// notebook is a ledger that remembers what it was told.
type notebook struct {
	reports []usage.Report
	answers func(usage.Report) (usage.Answer, error)
}

func (r *notebook) Report(_ context.Context, report usage.Report) (usage.Answer, error) {
	if err := report.Check(); err != nil {
		return usage.Answer{}, err
	}
	r.reports = append(r.reports, report)
	return r.answers(report)
}

// meters makes n meters of accounts of their own with both limits, each with a
// stream that has carried ten bytes.
func meters(t *tally, n int) (all []*meter) {
	limit := int64(1000)
	for i := range int64(n) {
		a := newAccount(t, i+1)
		a.limit(domain.Limits{TotalBandwidthLimit: &limit, MonthlyTrafficLimit: &limit})
		m := newMeter(NewMetrics(), t, &domain.Mapping{ID: i + 1, SourceClientID: 1, TargetClientID: 2}, a)
		m.opened(1)
		m.count.AToB(10)
		all = append(all, m)
	}
	return all
}

func newTestTally(answers func(usage.Report) (usage.Answer, error)) (*tally, *notebook) {
	l := &notebook{answers: answers}
	return newTally("node-001", l, time.Second, time.Now, NewMetrics(), slog.New(slog.DiscardHandler)), l
}

// More than fits into a report goes into several, and the answer about an account
// comes behind all that was counted for it.
func TestManyAccountsTakeSeveralReports(t *testing.T) {
	const n = 2*usage.MaxLines + 100
	counted := map[int64]int64{}
	tally, l := newTestTally(func(r usage.Report) (a usage.Answer, _ error) {
		for _, line := range r.Lines {
			counted[line.Account] += line.Bytes()
		}
		for _, ask := range r.Asks {
			a.Accounts = append(a.Accounts, usage.Account{Account: ask.Account, Used: counted[ask.Account] + 500, Fraction: 0.5})
		}
		return a, nil
	})
	all := meters(tally, n)
	tally.report(t.Context(), false)
	if len(counted) != n {
		t.Fatalf("%d accounts were reported, want %d", len(counted), n)
	}
	for _, m := range all {
		if left := m.payer.left.Load(); left != 1000-500-10 {
			t.Fatalf("account %d has %d left", m.payer.id, left)
		}
	}
	if len(l.reports) != 5 { // two of lines, and three that ask
		t.Errorf("%d reports", len(l.reports))
	}
	for _, m := range all {
		m.closed(0)
	}
	l.reports = nil
	tally.report(t.Context(), true)
	last := l.reports[len(l.reports)-1]
	if !last.Last || len(tally.sharing) != 0 || len(tally.live) != 0 {
		t.Errorf("the last report of %d is %.200v", len(l.reports), last)
	}
}

// While nobody answers, what is counted is added up by mapping, and the report
// that is under way stays as it is.
func TestSilenceCostsNoMoreThanItsMappings(t *testing.T) {
	var away error
	tally, l := newTestTally(func(usage.Report) (usage.Answer, error) { return usage.Answer{}, away })
	all := meters(tally, 3)
	away = errors.New("away")
	for range 100 {
		tally.report(t.Context(), false)
		for _, m := range all {
			m.count.BToA(1)
		}
	}
	for _, r := range l.reports {
		if r.Sequence != 1 || len(r.Lines) != 3 {
			t.Fatalf("sent %.200v", r)
		}
	}
	if len(tally.pending) != 3 {
		t.Errorf("%d lines wait", len(tally.pending))
	}
	away, l.reports = nil, nil
	tally.report(t.Context(), false)
	var sum usage.Traffic
	for _, r := range l.reports {
		for _, line := range r.Lines {
			sum.Add(line.Traffic)
		}
	}
	if want := (usage.Traffic{ToTarget: 30, ToSource: 300, Streams: 3}); sum != want {
		t.Errorf("in all %+v were reported, want %+v", sum, want)
	}
	// An answer that says nothing of an account is no reason to ask for ever.
	for _, m := range all {
		if m.payer.refuses() != "" || !m.payer.known(time.Now(), time.Hour) {
			t.Errorf("account %d: %q", m.payer.id, m.payer.refuses())
		}
	}
}

// A report that follows another one at once does not say that nothing is needed: the
// other forwarders would take the bandwidth.
func TestDemandLastsUntilItIsMeasuredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var demands []int64
		tally, _ := newTestTally(func(r usage.Report) (a usage.Answer, _ error) {
			for _, ask := range r.Asks {
				demands = append(demands, ask.Demand)
				a.Accounts = append(a.Accounts, usage.Account{Account: ask.Account, Fraction: 0.5})
			}
			return a, nil
		})
		m := meters(tally, 1)[0] // its limit is 1000 bytes a second
		for _, used := range []struct {
			bytes, low, high int64
		}{{10, 50_000, 50_000}, {400, 450_000, 550_000}, {800, 950_000, usage.FullDemand}, {100, 100_000, 150_000}} {
			m.count.AToB(int(used.bytes))
			time.Sleep(time.Second)
			demands = nil
			tally.report(t.Context(), false)
			tally.report(t.Context(), false)
			for _, got := range demands {
				if got < used.low || got > used.high {
					t.Errorf("with %d bytes in a second the demands are %v", used.bytes, demands)
				}
			}
			if len(demands) < 2 {
				t.Errorf("the demands are %v", demands)
			}
		}
	})
}

// For an account without limits a piece costs a few nanoseconds more than the
// numbers themselves: go test -bench Meter ./forwarder
func BenchmarkMeter(b *testing.B) {
	limit := int64(1 << 60)
	for name, limits := range map[string]domain.Limits{"unlimited": {}, "traffic limit": {MonthlyTrafficLimit: &limit}} {
		b.Run(name, func(b *testing.B) {
			tally, _ := newTestTally(nil)
			a := newAccount(tally, 1)
			a.limit(limits)
			m := newMeter(NewMetrics(), tally, &domain.Mapping{ID: 1}, a)
			for b.Loop() {
				m.count.AToB(1)
			}
		})
	}
	b.Run("numbers only", func(b *testing.B) {
		count := totalOf(NewMetrics())
		for b.Loop() {
			count.AToB(1)
		}
	})
}
