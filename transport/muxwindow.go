package transport

import "time"

// Windows grow where they limit a stream, as long as the session's budget lasts. A
// reader that was fast and then stalls would keep its growth for good: eight of them
// took all there is. When the budget is used up, growth is taken back from streams
// that do not use it: their windows are what they began with, and what the peer may
// send beyond that, or has sent, is lent until it is read. What is lent is bounded as
// well, by as much again.

const (
	// unusedFor is how long half a window is not read until its growth is unused, and
	// at least unusedRounds round trips.
	unusedFor    = time.Second
	unusedRounds = 16
	// sweepEvery is how often the streams are looked at for that.
	sweepEvery = 100 * time.Millisecond
)

// mayGrow tells whether a window may become n bytes larger. The lock is held.
func (s *muxSession) mayGrow(n int, now time.Duration) bool {
	if s.extra+n > windowBudget && now-s.swept >= sweepEvery {
		s.swept = now
		for _, st := range s.streams {
			st.takeBack(now)
		}
	}
	return s.extra+n <= windowBudget
}

// takeBack takes the stream's growth back if it is unused. The lock is held.
func (st *muxStream) takeBack(now time.Duration) {
	s, growth := st.s, st.window-startWindow
	if growth == 0 || now-st.told < max(unusedFor, unusedRounds*s.rtt) || s.lent+growth > windowBudget {
		return
	}
	st.window = startWindow
	st.surplus += growth
	s.extra -= growth
	s.lent += growth
	st.payBack()
}

// payBack takes what was read off what is lent, before the peer is let send more.
// The lock is held.
func (st *muxStream) payBack() {
	n := min(st.owed, st.surplus)
	st.owed -= n
	st.surplus -= n
	st.s.lent -= n
}
