package transport

import "time"

// A window grows when it limits its stream, as long as the session's budget lasts. A
// reader that was fast and then stalls would keep its growth for good, and eight such
// readers used up the whole budget. So when the budget is used up, the session reclaims
// growth from streams that do not use it. The window of such a stream is the start
// window again. The bytes that the peer may still send beyond that window, or has sent,
// are lent to the stream until they are read. Lent bytes have a bound of their own, of
// the same size as the budget.

const (
	// Growth counts as unused when half the window was not read for unusedFor, and for
	// at least unusedRounds round trips.
	unusedFor    = time.Second
	unusedRounds = 16
	// sweepEvery is how often the session looks for unused growth.
	sweepEvery = 100 * time.Millisecond
)

// mayGrow reports whether a window may become n bytes larger. The caller holds the
// lock.
func (s *muxSession) mayGrow(n int, now time.Duration) bool {
	if s.extra+n > windowBudget && now-s.swept >= sweepEvery {
		s.swept = now
		for _, st := range s.streams {
			st.reclaim(now)
		}
	}
	return s.extra+n <= windowBudget
}

// reclaim reclaims the stream's growth if the stream does not use it. The caller holds
// the lock.
func (st *muxStream) reclaim(now time.Duration) {
	s, growth := st.s, st.window-startWindow
	if growth == 0 || now-st.told < max(unusedFor, unusedRounds*s.rtt) || s.lent+growth > windowBudget {
		return
	}
	st.window = startWindow
	st.surplus += growth
	s.extra -= growth
	s.lent += growth
	st.repay()
}

// repay uses bytes that were read to reduce the bytes lent to the stream, before the
// peer may send more. The caller holds the lock.
func (st *muxStream) repay() {
	n := min(st.owed, st.surplus)
	st.owed -= n
	st.surplus -= n
	st.s.lent -= n
}
