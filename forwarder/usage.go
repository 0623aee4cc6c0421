package forwarder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/wire"
)

// Ledger is where usage is counted, and where it is known what the limits leave. It
// counts a report once, however often the report is sent.
type Ledger interface {
	Report(ctx context.Context, r usage.Report) (usage.Answer, error)
}

const (
	// reportTimeout bounds a report; the next attempt sends the same report.
	reportTimeout = 6 * time.Second
	// finalReport bounds the last report, for which a shutdown waits.
	finalReport = 2 * time.Second
	// heartbeat is how often a forwarder with open streams reports even without
	// traffic.
	heartbeat = usage.Fresh / 3
	// assurance is how long a stream waits for an answer about its account.
	assurance = 500 * time.Millisecond
)

// tally collects the counts of the meters and reports them.
//
// There is one report under way at a time. Until it is answered it is repeated
// unchanged. Counts of that time are added up by mapping and become the next report. So
// while the ledger is away, memory grows with the number of mappings that carry
// something, and not with time.
type tally struct {
	reporter, node string
	ledger         Ledger // nil: nothing is reported
	interval       time.Duration
	now            func() time.Time
	metrics        *Metrics
	log            *slog.Logger

	urgent chan struct{} // somebody waits for a report
	ends   chan struct{} // an account has used up its limit

	mu       sync.Mutex // guards all below
	touched  []*meter
	over     map[*account]bool // may carry nothing now; false: its streams must still be ended
	asked    map[*account]bool
	answered chan struct{} // closed at the next answer, or failure
	failing  bool
	tardy    bool // a stream has waited for the next answer without success

	making   sync.Mutex // held while a report is made and sent; guards all below
	pending  map[int64]*usage.Line
	open     map[int64]int64    // streams by mapping
	live     map[*meter]int64   // those with streams, and their numbers
	carried  map[int64]int64    // bytes by account that no report has asked about
	sharing  map[int64]bool     // accounts with a fraction of their bandwidth here
	sent     *usage.Report      // not answered yet
	asking   map[int64]*account // the next report asks about them
	watching map[int64]*meter
	inquired map[int64]*account // the report that was sent asked about them
	watched  map[int64]*meter
	more     bool // the report could not ask about all
	sequence int64
	round    int64     // of reading the meters
	gathered time.Time // when the meters were last read
	told     time.Time // when a report was last answered
	moving   bool      // that report had lines
}

func newTally(node string, ledger Ledger, interval time.Duration, now func() time.Time, metrics *Metrics, log *slog.Logger) *tally {
	return &tally{reporter: token(), node: node, ledger: ledger, interval: interval, now: now, metrics: metrics, log: log,
		urgent: make(chan struct{}, 1), ends: make(chan struct{}, 1),
		over: map[*account]bool{}, asked: map[*account]bool{}, answered: make(chan struct{}),
		pending: map[int64]*usage.Line{}, open: map[int64]int64{}, live: map[*meter]int64{}, carried: map[int64]int64{}, sharing: map[int64]bool{},
		gathered: now()}
}

// touch makes the next report read a meter. Without a tally nothing is counted.
func (t *tally) touch(m *meter) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touched = append(t.touched, m)
}

// spent ends the streams of an account. It is called from the goroutines that move
// bytes, for every piece until the streams have ended.
func (t *tally) spent(a *account) {
	if t == nil {
		return
	}
	t.mu.Lock()
	_, known := t.over[a]
	if !known {
		t.over[a] = false
	}
	t.mu.Unlock()
	if !known {
		a.halt()
		signal(t.ends)
	}
}

// judge is called when the limits of an account, or its known usage, have changed: its
// streams are ended, or new ones are allowed again.
func (t *tally) judge(a *account) {
	switch {
	case t == nil:
	case a.refuses() != "":
		t.spent(a)
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.over, a)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// assure makes sure that the account's usage at other forwarders, and its fraction of
// the bandwidth, are known before a stream starts. If there is no answer in time, the
// present knowledge decides.
func (t *tally) assure(ctx context.Context, a *account) wire.Code {
	if t == nil || t.ledger == nil || a.known(t.now(), 3*t.interval) {
		return a.refuses()
	}
	wait := time.NewTimer(assurance)
	defer wait.Stop()
	for {
		t.mu.Lock()
		answered, failing := t.answered, t.failing || t.tardy
		t.asked[a] = true
		t.mu.Unlock()
		if failing {
			return a.refuses()
		}
		signal(t.urgent)
		select {
		case <-answered:
		case <-wait.C:
			t.mu.Lock()
			t.tardy = true // the next stream need not wait for the same
			t.mu.Unlock()
			return a.refuses()
		case <-ctx.Done():
			return a.refuses()
		}
		if a.known(t.now(), 3*t.interval) {
			return a.refuses()
		}
	}
}

// run reports until ctx ends. Counts that were not reported then wait for finish.
func (t *tally) run(ctx context.Context) {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-t.urgent:
		case <-ctx.Done():
			return
		}
		t.report(ctx, false)
	}
}

// finish reports the remaining counts, in a report that is marked as the last.
func (t *tally) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), finalReport)
	defer cancel()
	t.report(ctx, true)
}

// report collects and sends until nothing is left, or nobody answers.
func (t *tally) report(ctx context.Context, last bool) {
	t.making.Lock()
	defer t.making.Unlock()
	t.gather()
	if t.ledger == nil {
		clear(t.pending)
		return
	}
	for {
		if t.sent == nil && !t.make(last) {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, reportTimeout)
		answer, err := t.ledger.Report(bounded, *t.sent)
		cancel()
		if ctx.Err() != nil && !last {
			return // the forwarder ends; finish sends it again
		}
		if err != nil {
			t.metrics.reports.WithLabelValues("failed").Inc()
			t.settled(err)
			return
		}
		t.metrics.reports.WithLabelValues("counted").Inc()
		t.apply(answer)
		ended := t.sent.Last
		t.sent = nil
		t.settled(nil)
		if ended {
			return
		}
	}
}

// settled wakes the streams that wait for an answer. It logs once that the ledger is
// away, and once that it is back.
func (t *tally) settled(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch failing := err != nil; {
	case failing && !t.failing:
		t.log.Warn("usage cannot be reported; it is counted and reported later", "error", err)
	case !failing && t.failing:
		t.log.Info("usage is reported again")
	}
	t.failing, t.tardy = err != nil, false
	close(t.answered)
	t.answered = make(chan struct{})
}

// gather reads the meters that have counted since the last time.
func (t *tally) gather() {
	t.mu.Lock()
	touched := t.touched
	t.touched = nil
	now := t.now()
	for a := range t.over {
		if a.isGone() {
			delete(t.over, a)
			continue
		}
		a.roll(now)
		if a.refuses() == "" {
			delete(t.over, a)
		}
	}
	t.round++
	read := func(a *account) {
		if a != nil && a.shared.Load() {
			a.reading(t.round)
		}
	}
	for a := range t.over {
		read(a)
	}
	for a := range t.asked {
		read(a)
	}
	t.mu.Unlock()
	for m := range t.live {
		read(m.payer)
	}
	for _, m := range touched {
		read(m.payer)
	}
	for _, m := range touched {
		m.touched.Store(false) // before reading: later counts touch it again
		seen := usage.Traffic{ToTarget: m.toTarget.Load(), ToSource: m.toSource.Load(), Streams: m.begun.Load()}
		open := m.open.Load()
		t.open[m.mapping] += open - t.live[m]
		if open > 0 {
			t.live[m] = open
		} else {
			delete(t.live, m)
		}
		line := t.pending[m.mapping]
		if line == nil {
			line = &usage.Line{Mapping: m.mapping}
			t.pending[m.mapping] = line
		}
		if m.payer != nil {
			line.Account = m.payer.id
		}
		line.Source, line.Target, line.Open = m.source, m.target, t.open[m.mapping]
		line.ToTarget += seen.ToTarget - m.reported.ToTarget
		line.ToSource += seen.ToSource - m.reported.ToSource
		line.Streams += seen.Streams - m.reported.Streams
		m.reported = seen
		if t.open[m.mapping] == 0 {
			delete(t.open, m.mapping)
		}
		t.ask(m)
	}
}

// enforce ends the streams of accounts that have used up a limit.
func (f *Forwarder) enforce(ctx context.Context) {
	for {
		select {
		case <-f.tally.ends:
		case <-ctx.Done():
			return
		}
		f.tally.mu.Lock()
		var accounts []*account
		for a, ended := range f.tally.over {
			if !ended {
				f.tally.over[a] = true
				accounts = append(accounts, a)
			}
		}
		f.tally.mu.Unlock()
		for _, a := range accounts {
			f.carryOut(f.routes.exhausted(a))
		}
	}
}

// exhausted ends all streams that an account pays for, if the limit is still used up.
func (r *routes) exhausted(a *account) *effects {
	r.mu.Lock()
	defer r.mu.Unlock()
	fx := &effects{}
	code := a.refuses()
	if code == "" {
		return fx
	}
	for _, m := range r.mappings {
		if m.State.UserID == a.id {
			fx.resetAll(m, code)
		}
	}
	return fx
}

// payer gives the account that pays for a mapping's bytes: that of its user, whoever
// owns the clients. nil: its limits are not known here.
func (r *routes) payer(user int64) *account {
	if l := r.limits[user]; l != nil {
		return l.account
	}
	return nil
}
