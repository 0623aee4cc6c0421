package forwarder

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/wire"
)

// account is who pays for the bytes of mappings here, and what their limits leave.
//
// Limits come with the records, and hold from the moment a record is applied.
// What the other forwarders have used comes with the answers to reports. While
// nobody answers it decides on what it was told last, and what it counts itself.
type account struct {
	id    int64
	tally *tally
	brake transport.Brake

	capped atomic.Bool  // it has a monthly limit: left counts
	left   atomic.Int64 // bytes, of that
	none   atomic.Bool  // it may use no bandwidth at all
	shared atomic.Bool  // it has a limit that is held together with others

	mu     sync.Mutex
	limits domain.Limits // guarded by mu, like all below
	share  float64       // of the bandwidth, for this forwarder
	used   int64         // in the month, when last heard
	resets time.Time     // when that month ends
	rolled time.Time     // the resets after which this side began a month by itself
	mark   int64         // left, when the meters were read for the report that is under way
	next   int64         // left, when they were read last
	read   int64         // the tally's round in which that was
	heard  time.Time     // the last answer; zero = none yet
	gone   bool          // nobody connected here has to do with it any more
}

func newAccount(t *tally, id int64) *account {
	a := &account{id: id, tally: t, share: 1}
	if t != nil {
		a.resets = usage.NextMonth(t.now())
	}
	return a
}

// limit sets the limits from now on.
func (a *account) limit(l domain.Limits) {
	a.mu.Lock()
	was := a.limits
	a.limits = l
	a.shared.Store(l.TotalBandwidthLimit != nil || l.MonthlyTrafficLimit != nil)
	a.none.Store(l.TotalBandwidthLimit != nil && *l.TotalBandwidthLimit == 0)
	switch limit, before := l.MonthlyTrafficLimit, was.MonthlyTrafficLimit; {
	case limit == nil:
		a.capped.Store(false)
	case before == nil:
		a.begin(*limit - a.used)
		a.capped.Store(true)
	default:
		a.shift(*limit - *before)
	}
	a.slow()
	a.mu.Unlock()
	a.tally.judge(a)
}

// slow sets the brake. The lock is held. Who may carry nothing is held to as good
// as that until his streams have ended, or some more would pass meanwhile.
func (a *account) slow() {
	if a.refuses() != "" {
		a.brake.Limit(1)
		return
	}
	if a.limits.TotalBandwidthLimit == nil {
		a.brake.Limit(0)
		return
	}
	a.brake.Limit(max(1, int64(float64(*a.limits.TotalBandwidthLimit)*a.share)))
}

// halt stops what flows.
func (a *account) halt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slow()
}

// charge takes n bytes off what is left.
func (a *account) charge(n int64) {
	if a.capped.Load() && a.left.Add(-n) <= 0 {
		a.tally.spent(a)
	}
}

// refuses tells why the account may carry nothing now, or "".
func (a *account) refuses() wire.Code {
	if a == nil || (!a.none.Load() && (!a.capped.Load() || a.left.Load() > 0)) {
		return ""
	}
	return wire.QuotaTraffic
}

// begin sets what is left, whatever was charged. The lock is held.
func (a *account) begin(left int64) {
	a.left.Store(left)
	a.mark, a.next = left, left
}

// shift changes what is left; what was charged since a report stays charged. The
// lock is held.
func (a *account) shift(by int64) {
	a.left.Add(by)
	a.mark += by
	a.next += by
}

// reading notes what is left before the meters are read: what is charged from now
// on may not be in the next report, and is taken for not being in it.
func (a *account) reading(round int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next, a.read = a.left.Load(), round
}

// reporting says that a report is made of what was read in the round.
func (a *account) reporting(round int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.read != round { // nothing of it was there to be read
		a.next, a.read = a.left.Load(), round
	}
	a.mark = a.next
}

// answered takes over what a report was answered with.
func (a *account) answered(as usage.Account, now time.Time) {
	a.mu.Lock()
	a.heard, a.used, a.resets = now, as.Used, as.Resets
	if as.Share > 0 && as.Share != a.share {
		a.share = as.Share
	}
	if limit := a.limits.MonthlyTrafficLimit; limit != nil {
		a.shift(*limit - as.Used - a.mark)
	}
	a.slow()
	a.mu.Unlock()
	a.tally.judge(a)
}

// unanswered is for an account that an answer said nothing of.
func (a *account) unanswered(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = now
}

// roll begins a new month when the one that was heard of has ended, once: from
// then on it is the control plane's to say, which may have another clock.
func (a *account) roll(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(a.resets) || a.rolled.Equal(a.resets) {
		return
	}
	a.rolled = a.resets
	if a.heard.IsZero() {
		a.resets = usage.NextMonth(now)
	}
	if limit := a.limits.MonthlyTrafficLimit; limit != nil {
		a.begin(*limit)
	}
	a.used = 0
	a.slow()
}

// known tells whether what is known of the account is not older than age, or
// need not be known.
func (a *account) known(now time.Time, age time.Duration) bool {
	if a == nil || !a.shared.Load() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.heard.IsZero() && now.Sub(a.heard) <= age
}

// demand is how much of the bandwidth is wanted here, in millionths, when so many
// bytes have passed in a span; 0 without a limit.
func (a *account) demand(bytes int64, span time.Duration) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	limit := a.limits.TotalBandwidthLimit
	if limit == nil || *limit == 0 {
		return 0
	}
	if a.brake.Waited() {
		return usage.FullDemand
	}
	// A quarter more than was used, so that it can grow, and enough to begin with.
	part := 1.25 * float64(bytes) / max(span.Seconds(), 0.001) / float64(*limit)
	return max(usage.FullDemand/20, min(usage.FullDemand, int64(part*usage.FullDemand)))
}

// leave says that nobody connected here has to do with the account any more.
func (a *account) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
}

func (a *account) isGone() (gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone
}

// connections is the limit of a mapping's connections, nil = none.
func (a *account) connections() *int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.limits.MaxConnectionsPerMapping
}
