package usage

import (
	"context"
	"time"
)

// Transaction is what counting asks of a database. All calls of a report are one
// transaction. A store says in SQL what each does, and nothing decides there.
type Transaction interface {
	// Begin takes the row of a reporter, so that a report and its repetition come
	// one after the other, and gives the number it used last.
	Begin(ctx context.Context, reporter, node string, now time.Time) (last int64, err error)
	// Counted notes the number of a report and the rates in it.
	Counted(ctx context.Context, reporter string, sequence, toTarget, toSource int64) error
	// AddBuckets adds what lines carried to the buckets of now.
	AddBuckets(ctx context.Context, now time.Time, moved []Line) error
	// SetLive notes the streams that are open, and EndLive that none are.
	SetLive(ctx context.Context, reporter string, open []Line) error
	EndLive(ctx context.Context, reporter string, mappings []int64) error
	// AddMonths adds to the month of accounts, which come in rising order, and gives
	// what each has used then. It locks them until the transaction ends.
	AddMonths(ctx context.Context, now time.Time, sums []Sum) (used map[int64]int64, err error)
	// OtherAllocations gives what reporters that were heard of since have of accounts.
	OtherAllocations(ctx context.Context, reporter string, since time.Time, accounts []int64) (map[int64][]Allocation, error)
	// SetAllocations notes what a reporter has of accounts, and DropAllocations that it has
	// nothing.
	SetAllocations(ctx context.Context, reporter string, now time.Time, parts []Part) error
	DropAllocations(ctx context.Context, reporter string, accounts []int64) error
	// Elsewhere gives the streams of mappings that others have open, who were heard
	// of since. Mappings without any are left out.
	Elsewhere(ctx context.Context, reporter string, since time.Time, mappings []int64) ([]Open, error)
	// End takes what a reporter has open and its fractions out of what is there now, and
	// keeps its number.
	End(ctx context.Context, reporter string) error
}

// Part is what a reporter has of the bandwidth of an account.
type Part struct {
	Account int64
	Allocation
}

// Count counts a report in a transaction and answers it.
func Count(ctx context.Context, tx Transaction, now time.Time, r Report) (Answer, error) {
	last, err := tx.Begin(ctx, r.Reporter, r.Node, now)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Duplicate: r.Sequence <= last}
	if !answer.Duplicate {
		toTarget, toSource := r.Rate()
		if err := tx.Counted(ctx, r.Reporter, r.Sequence, toTarget, toSource); err != nil {
			return Answer{}, err
		}
		if err := noteLines(ctx, tx, now, r); err != nil {
			return Answer{}, err
		}
	}
	var used map[int64]int64
	if sums := r.Sums(answer.Duplicate); len(sums) > 0 {
		if used, err = tx.AddMonths(ctx, now, sums); err != nil {
			return Answer{}, err
		}
	}
	fractions, err := divide(ctx, tx, now, r)
	if err != nil {
		return Answer{}, err
	}
	for _, a := range r.Asks {
		answer.Accounts = append(answer.Accounts, Account{Account: a.Account, Used: used[a.Account], Resets: NextMonth(now), Fraction: fractions[a.Account]})
	}
	if len(r.Mappings) > 0 {
		if answer.Elsewhere, err = tx.Elsewhere(ctx, r.Reporter, now.Add(-Fresh), r.Mappings); err != nil {
			return Answer{}, err
		}
	}
	if r.Last {
		err = tx.End(ctx, r.Reporter)
	}
	return answer, err
}

// noteLines adds to the buckets and notes the open streams.
func noteLines(ctx context.Context, tx Transaction, now time.Time, r Report) error {
	if moved := r.Moved(); len(moved) > 0 {
		if err := tx.AddBuckets(ctx, now, moved); err != nil {
			return err
		}
	}
	var open []Line
	var ended []int64
	for _, l := range r.Lines {
		if l.Open == 0 {
			ended = append(ended, l.Mapping)
		} else {
			open = append(open, l)
		}
	}
	if len(open) > 0 {
		if err := tx.SetLive(ctx, r.Reporter, open); err != nil {
			return err
		}
	}
	if len(ended) == 0 {
		return nil
	}
	return tx.EndLive(ctx, r.Reporter, ended)
}

// divide gives the reporter its parts of the bandwidth of accounts. AddMonths has
// locked them, so that one part at a time is given out.
func divide(ctx context.Context, tx Transaction, now time.Time, r Report) (map[int64]float64, error) {
	if len(r.Asks) == 0 {
		return nil, nil
	}
	accounts := make([]int64, len(r.Asks))
	for i, a := range r.Asks {
		accounts[i] = a.Account
	}
	others, err := tx.OtherAllocations(ctx, r.Reporter, now.Add(-Fresh), accounts)
	if err != nil {
		return nil, err
	}
	fractions := map[int64]float64{}
	var set []Part
	var dropped []int64
	for _, a := range r.Asks {
		if a.Demand == 0 {
			dropped = append(dropped, a.Account)
			continue
		}
		fractions[a.Account] = FractionOf(a.Demand, others[a.Account])
		set = append(set, Part{Account: a.Account, Allocation: Allocation{Demand: a.Demand, Fraction: fractions[a.Account]}})
	}
	if len(dropped) > 0 {
		err = tx.DropAllocations(ctx, r.Reporter, dropped)
	}
	if len(set) > 0 && err == nil {
		err = tx.SetAllocations(ctx, r.Reporter, now, set)
	}
	return fractions, err
}
