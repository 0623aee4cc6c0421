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

// account is a user whose mappings carry bytes at this forwarder, with the user's
// limits and what is left of them.
//
// The limits come with the records of the feed and hold as soon as a record is
// applied. The usage at other forwarders comes with the answers to reports. While the
// control plane does not answer, the account uses the last answer and its own count.
type account struct {
	id    int64
	tally *tally
	brake transport.Brake

	capped atomic.Bool  // the account has a monthly limit; without one, left has no meaning
	left   atomic.Int64 // bytes that remain of the monthly limit
	none   atomic.Bool  // the bandwidth limit is zero
	shared atomic.Bool  // a limit counts the usage of all forwarders together

	mu       sync.Mutex
	limits   domain.Limits // guarded by mu, like all fields below
	fraction float64       // of the bandwidth limit, for this forwarder: 0 to 1
	used     int64         // bytes in this month, by the last answer
	resets   time.Time     // the end of this month
	rolled   time.Time     // the value of resets at which this forwarder began a new month by itself
	mark     int64         // the value of left that the report under way was made at
	next     int64         // the value of left at the last reading of the meters
	read     int64         // the tally's round of that reading
	heard    time.Time     // the last answer; zero = none yet
	demanded int64         // of the bandwidth limit, as last measured; 0 = not yet
	measured time.Time     // when that was
	passed   int64         // bytes since then
	gone     bool          // no client connected here has mappings of this account
}

func newAccount(t *tally, id int64) *account {
	a := &account{id: id, tally: t, fraction: 1}
	if t != nil {
		a.resets = usage.NextMonth(t.now())
	}
	return a
}

// limit replaces the limits.
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

// slow sets the brake to the present limits. The caller holds the lock. An account
// that may carry nothing gets one byte a second until its streams have ended:
// without a brake they would carry more bytes meanwhile.
func (a *account) slow() {
	if a.refuses() != "" {
		a.brake.Limit(1)
		return
	}
	if a.limits.TotalBandwidthLimit == nil {
		a.brake.Limit(0)
		return
	}
	a.brake.Limit(max(1, int64(float64(*a.limits.TotalBandwidthLimit)*a.fraction)))
}

// halt brakes the open streams of an account that has reached a limit.
func (a *account) halt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slow()
}

// charge subtracts n bytes from what is left of the monthly limit.
func (a *account) charge(n int64) {
	if a.capped.Load() && a.left.Add(-n) <= 0 {
		a.tally.spent(a)
	}
}

// refuses gives the code with which new streams are refused now; "" = they are allowed.
func (a *account) refuses() wire.Code {
	if a == nil || (!a.none.Load() && (!a.capped.Load() || a.left.Load() > 0)) {
		return ""
	}
	return wire.QuotaTraffic
}

// begin sets what is left and forgets what was charged. The caller holds the lock.
func (a *account) begin(left int64) {
	a.left.Store(left)
	a.mark, a.next = left, left
}

// shift changes what is left. Bytes that were charged after the last report stay
// charged. The caller holds the lock.
func (a *account) shift(by int64) {
	a.left.Add(by)
	a.mark += by
	a.next += by
}

// reading notes what is left just before the meters are read. Bytes charged after
// this moment may or may not be in the next report; they count as not reported.
func (a *account) reading(round int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next, a.read = a.left.Load(), round
}

// reporting notes that a report is made from the reading of this round.
func (a *account) reporting(round int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.read != round { // the account came after the meters were read
		a.next, a.read = a.left.Load(), round
	}
	a.mark = a.next
}

// answered applies the answer to a report.
func (a *account) answered(as usage.Account, now time.Time) {
	a.mu.Lock()
	a.heard, a.used, a.resets = now, as.Used, as.Resets
	if as.Fraction > 0 && as.Fraction != a.fraction {
		a.fraction = as.Fraction
	}
	if limit := a.limits.MonthlyTrafficLimit; limit != nil {
		a.shift(*limit - as.Used - a.mark)
	}
	a.slow()
	a.mu.Unlock()
	a.tally.judge(a)
}

// unanswered notes an answer that does not mention the account.
func (a *account) unanswered(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = now
}

// roll begins a new month when the present one has ended. It does so once for each
// month: afterwards the control plane decides, because its clock may differ.
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

// known reports whether the last answer is not older than age. An account without
// shared limits is always known.
func (a *account) known(now time.Time, age time.Duration) bool {
	if a == nil || !a.shared.Load() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.heard.IsZero() && now.Sub(a.heard) <= age
}

// demand gives the part of the bandwidth limit that this forwarder needs, in
// millionths, from the bytes that passed since it was last measured. It is 0 without a
// limit. A report that follows another one at once says nothing new: no bytes have passed
// and no stream has waited in so short a time, and what was needed is needed still.
func (a *account) demand(bytes int64, now time.Time, span time.Duration) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passed += bytes
	limit := a.limits.TotalBandwidthLimit
	if limit == nil || *limit == 0 {
		a.passed, a.demanded = 0, 0
		return 0
	}
	if a.demanded > 0 {
		span = now.Sub(a.measured)
	}
	waited := a.brake.Waited()
	if a.demanded > 0 && span < a.tally.interval/2 && !waited {
		return a.demanded
	}
	// A quarter more than was used, so that streams can grow; at least a twentieth, so that they can start.
	part := 1.25 * float64(a.passed) / max(span.Seconds(), 0.001) / float64(*limit)
	a.demanded = max(usage.FullDemand/20, min(usage.FullDemand, int64(part*usage.FullDemand)))
	if waited {
		a.demanded = usage.FullDemand
	}
	a.passed, a.measured = 0, now
	return a.demanded
}

// leave notes that no client connected here has mappings of this account.
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

// connections gives the limit of connections for each mapping; nil = no limit.
func (a *account) connections() *int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.limits.MaxConnectionsPerMapping
}
