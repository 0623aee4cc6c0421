package usage

import (
	"context"
	"time"
)

// Transaction is what [Count] needs from a database. All calls for one report are one
// transaction. A store only writes each method as SQL; all decisions are in this
// package.
type Transaction interface {
	// Begin locks the row of a reporter, so that a report and its repetition are
	// counted one after the other. It gives the number of the reporter's last report.
	Begin(ctx context.Context, reporter, node string, now time.Time) (last int64, err error)
	// Counted stores the number of a report, and the rates in it.
	Counted(ctx context.Context, reporter string, sequence, toTarget, toSource int64) error
	// AddBuckets adds the traffic of lines to the buckets that contain now.
	AddBuckets(ctx context.Context, now time.Time, moved []Line) error
	// SetLive stores the numbers of open streams. EndLive removes those of mappings
	// without open streams.
	SetLive(ctx context.Context, reporter string, open []Line) error
	EndLive(ctx context.Context, reporter string, mappings []int64) error
	// AddMonths adds to the months of accounts and gives what each account has used in
	// its month. The sums come in rising order of accounts. The rows stay locked until
	// the transaction ends.
	AddMonths(ctx context.Context, now time.Time, sums []Sum) (used map[int64]int64, err error)
	// OtherAllocations gives the allocations of other reporters whose last report came
	// after since.
	OtherAllocations(ctx context.Context, reporter string, since time.Time, accounts []int64) (map[int64][]Allocation, error)
	// SetAllocations stores a reporter's allocations. DropAllocations removes them.
	SetAllocations(ctx context.Context, reporter string, now time.Time, parts []Part) error
	DropAllocations(ctx context.Context, reporter string, accounts []int64) error
	// Elsewhere gives the open streams of mappings at other reporters whose last report
	// came after since. Mappings without open streams are left out.
	Elsewhere(ctx context.Context, reporter string, since time.Time, mappings []int64) ([]Open, error)
	// End removes the open streams and the allocations of a reporter. It keeps the
	// number of the last report.
	End(ctx context.Context, reporter string) error
}

// Part is a reporter's allocation of the bandwidth of one account.
type Part struct {
	Account int64
	Allocation
}

// Count counts a report in a transaction and gives the answer to it.
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

// noteLines adds to the buckets and stores the open streams.
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

// divide gives the reporter its fractions of the bandwidth of accounts. AddMonths has
// locked the accounts, so no other report is given a fraction of them at the same time.
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
