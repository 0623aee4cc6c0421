package usage

import (
	"cmp"
	"slices"
)

// Sum is what a report charges to one account.
type Sum struct {
	Account int64
	Traffic
}

// Sums gives what the report's lines charge to accounts, in rising order of accounts.
// Every store locks accounts in this order, so no two transactions wait for each other.
// An account that is only asked for is there with a sum of zero. A repeated report
// charges nothing.
func (r Report) Sums(repeated bool) []Sum {
	byAccount := map[int64]*Sum{}
	of := func(account int64) *Sum {
		s := byAccount[account]
		if s == nil {
			s = &Sum{Account: account}
			byAccount[account] = s
		}
		return s
	}
	for _, a := range r.Asks {
		of(a.Account)
	}
	for _, l := range r.Lines {
		if !repeated && l.Traffic != (Traffic{}) {
			of(l.Account).Add(l.Traffic)
		}
	}
	sums := make([]Sum, 0, len(byAccount))
	for _, s := range byAccount {
		sums = append(sums, *s)
	}
	slices.SortFunc(sums, func(a, b Sum) int { return cmp.Compare(a.Account, b.Account) })
	return sums
}

// Moved gives the lines with traffic, in rising order of mappings.
func (r Report) Moved() []Line {
	var moved []Line
	for _, l := range r.Lines {
		if l.Traffic != (Traffic{}) {
			moved = append(moved, l)
		}
	}
	slices.SortFunc(moved, func(a, b Line) int { return cmp.Compare(a.Mapping, b.Mapping) })
	return moved
}

// Rate gives the bytes per second of the report.
func (r Report) Rate() (toTarget, toSource int64) {
	if r.Span <= 0 || r.Last {
		return 0, 0
	}
	for _, l := range r.Lines {
		toTarget += l.ToTarget
		toSource += l.ToSource
	}
	per := r.Span.Seconds()
	return int64(float64(toTarget) / per), int64(float64(toSource) / per)
}
