package datagram

import (
	"time"

	"golang.org/x/time/rate"
)

// A source address of UDP may be forged, and then an answer hits somebody who never
// asked. So a public port sends little more than it gets to addresses that have not
// shown that they hear the answers. docs/decisions/udp.md has the reasons.
const (
	// BudgetRate and BudgetBurst, in bytes a second and bytes, are what all unproven
	// sources of a port together may draw beyond what they have sent.
	BudgetRate, BudgetBurst = 256 << 10, 1 << 20
	// A source is believed after so many datagrams that came behind an answer, over so
	// long a time.
	believedRounds = 4
	believedAfter  = 2 * time.Second
	// A believed source may draw so many times what it has sent: acknowledgements of a
	// download are small.
	believedFactor = 1000
)

// Budget bounds what unproven sources may draw. nil bounds nothing.
type Budget struct{ excess *rate.Limiter }

// NewBudget makes the budget of one public port.
func NewBudget() *Budget { return &Budget{rate.NewLimiter(BudgetRate, BudgetBurst)} }

// source is what is known of one address. It is guarded by Flows.mu.
type source struct {
	flows          int
	received, sent int64 // bytes
	answered       bool  // since its last datagram
	rounds         int
	since          int64 // its first datagram, see clock
}

// hears notes a datagram of n bytes from the source.
func (s *source) hears(n int) {
	s.received += int64(n)
	if s.answered {
		s.answered = false
		s.rounds++
	}
}

// draws tells whether an answer of n bytes may go to the source, and notes it.
func (b *Budget) draws(s *source, n int) bool {
	if b == nil {
		return true
	}
	believed := s.rounds >= believedRounds && time.Duration(clock()-s.since) >= believedAfter
	free := s.received
	if believed {
		free *= believedFactor
	}
	if excess := s.sent + int64(n) - max(free, s.sent); excess > 0 && !b.excess.AllowN(time.Now(), int(excess)) {
		return false
	}
	s.sent += int64(n)
	s.answered = true
	return true
}
