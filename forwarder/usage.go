package forwarder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/wire"
)

// Ledger is where what was used is written down, and what the limits leave is
// known. It counts a report once, however often it is sent.
type Ledger interface {
	Report(ctx context.Context, r usage.Report) (usage.Answer, error)
}

const (
	// reportTimeout bounds a report; the next attempt sends the same.
	reportTimeout = 6 * time.Second
	// finalReport bounds the last one, behind which a shutdown waits.
	finalReport = 2 * time.Second
	// heartbeat is how often a forwarder with open streams says that it is there.
	heartbeat = usage.Fresh / 3
	// assurance is how long a stream waits for what is known of its account.
	assurance = 500 * time.Millisecond
)

// tally gathers what the meters have counted and reports it.
//
// There is one report under way at a time. Until it is answered it is repeated as
// it is; what is counted meanwhile is added up by mapping and makes the next one.
// So a ledger that is away costs memory for each mapping that carries something,
// and not for its time.
type tally struct {
	reporter, node string
	ledger         Ledger // nil: nobody wants to know
	interval       time.Duration
	now            func() time.Time
	metrics        *Metrics
	log            *slog.Logger

	urgent chan struct{} // somebody waits for a report
	ends   chan struct{} // somebody has used up what he may

	mu       sync.Mutex // guards all below
	touched  []*meter
	over     map[*account]bool // may carry nothing now; false: its streams are to be ended
	asked    map[*account]bool
	answered chan struct{} // closed at the next answer, or failure
	failing  bool
	tardy    bool // somebody has waited for the next answer in vain

	making   sync.Mutex // held while a report is made and sent; guards all below
	pending  map[int64]*usage.Line
	open     map[int64]int64    // streams by mapping
	live     map[*meter]int64   // those with streams, and how many
	sharing  map[int64]bool     // accounts with a share
	sent     *usage.Report      // not answered yet
	asking   map[int64]*account // to be asked about with the next report
	watching map[int64]*meter
	inquired map[int64]*account // with the one that was sent
	watched  map[int64]*meter
	more     bool // it could not ask about all
	sequence int64
	round    int64     // of reading meters
	gathered time.Time // when meters were read last
	told     time.Time // when a report was answered last
	moving   bool      // that one had lines
}

func newTally(node string, ledger Ledger, interval time.Duration, now func() time.Time, metrics *Metrics, log *slog.Logger) *tally {
	return &tally{reporter: token(), node: node, ledger: ledger, interval: interval, now: now, metrics: metrics, log: log,
		urgent: make(chan struct{}, 1), ends: make(chan struct{}, 1),
		over: map[*account]bool{}, asked: map[*account]bool{}, answered: make(chan struct{}),
		pending: map[int64]*usage.Line{}, open: map[int64]int64{}, live: map[*meter]int64{}, sharing: map[int64]bool{},
		gathered: now()}
}

// touch puts a meter where the next report looks. Without a tally nobody counts.
func (t *tally) touch(m *meter) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touched = append(t.touched, m)
}

// spent has the streams of an account ended. It is called from where bytes are
// moved, and for every piece until they have ended.
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

// judge is called when the limits of an account, or what is known of it, have
// changed: its streams are ended, or new ones let through again.
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

// assure sees to it that something is known of an account before its stream goes
// on: what it has used elsewhere, and its share. When nobody answers in time, what
// is known decides.
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
			t.tardy = true // the next one need not find out again
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

// finish reports the rest, and that this was the last.
func (t *tally) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), finalReport)
	defer cancel()
	t.report(ctx, true)
}

// report gathers and sends until nothing is left, or nobody answers.
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
		t.take(answer)
		ended := t.sent.Last
		t.sent = nil
		t.settled(nil)
		if ended {
			return
		}
	}
}

// settled wakes who waits for an answer. A ledger that goes away is told in the
// log once, and that it is back.
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
		m.touched.Store(false) // before reading: what is counted from now on touches it again
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

// enforce ends the streams of accounts that have used up what they may.
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

// exhausted ends all streams that an account pays for, if it still must.
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

// payer gives the account that pays for a mapping's bytes: that of its user,
// whoever's clients they pass through. nil: its limits are not known here.
func (r *routes) payer(user int64) *account {
	if l := r.limits[user]; l != nil {
		return l.account
	}
	return nil
}
