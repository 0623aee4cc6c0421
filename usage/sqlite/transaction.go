package sqlite

import (
	"context"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite/internal/queries"
)

// transaction is a [usage.Transaction]. It runs one statement for each line, because a
// statement costs no round trip here. No other transaction writes at the same time.
type transaction struct{ q *queries.Queries }

func (t transaction) Begin(ctx context.Context, reporter, node string, now time.Time) (int64, error) {
	return t.q.Begin(ctx, queries.BeginParams{Reporter: reporter, Node: node, SeenAt: now.Unix()})
}

func (t transaction) Counted(ctx context.Context, reporter string, sequence, toTarget, toSource int64) error {
	return t.q.Counted(ctx, queries.CountedParams{Reporter: reporter, Sequence: sequence, RateToTarget: toTarget, RateToSource: toSource})
}

func (t transaction) AddBuckets(ctx context.Context, now time.Time, moved []usage.Line) error {
	for _, l := range moved {
		for _, step := range usage.Steps {
			err := t.q.AddBucket(ctx, queries.AddBucketParams{Step: seconds(step), At: step.Begin(now).Unix(),
				Mapping: l.Mapping, Account: l.Account, Source: l.Source, Target: l.Target,
				ToTarget: l.ToTarget, ToSource: l.ToSource, Streams: l.Streams})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (t transaction) SetLive(ctx context.Context, reporter string, open []usage.Line) error {
	for _, l := range open {
		err := t.q.SetLive(ctx, queries.SetLiveParams{Reporter: reporter, Mapping: l.Mapping, Account: l.Account,
			Source: l.Source, Target: l.Target, Streams: l.Open})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t transaction) EndLive(ctx context.Context, reporter string, mappings []int64) error {
	for _, m := range mappings {
		if err := t.q.EndLive(ctx, queries.EndLiveParams{Reporter: reporter, Mapping: m}); err != nil {
			return err
		}
	}
	return nil
}

func (t transaction) AddMonths(ctx context.Context, now time.Time, sums []usage.Sum) (map[int64]int64, error) {
	used := map[int64]int64{}
	for _, s := range sums {
		n, err := t.q.AddMonth(ctx, queries.AddMonthParams{Account: s.Account, Month: usage.MonthOf(now).Unix(),
			ToTarget: s.ToTarget, ToSource: s.ToSource, Streams: s.Streams})
		if err != nil {
			return nil, err
		}
		used[s.Account] = n
	}
	return used, nil
}

func (t transaction) OtherAllocations(ctx context.Context, reporter string, since time.Time, accounts []int64) (map[int64][]usage.Allocation, error) {
	others := map[int64][]usage.Allocation{}
	for _, account := range accounts {
		rows, err := t.q.OtherShares(ctx, queries.OtherSharesParams{Account: account, Reporter: reporter, SeenAt: since.Unix()})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			others[account] = append(others[account], usage.Allocation{Demand: row.Demand, Fraction: row.Share})
		}
	}
	return others, nil
}

func (t transaction) SetAllocations(ctx context.Context, reporter string, now time.Time, parts []usage.Part) error {
	for _, p := range parts {
		err := t.q.SetShare(ctx, queries.SetShareParams{Account: p.Account, Reporter: reporter, Demand: p.Demand, Share: p.Fraction, SeenAt: now.Unix()})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t transaction) DropAllocations(ctx context.Context, reporter string, accounts []int64) error {
	for _, account := range accounts {
		if err := t.q.EndShare(ctx, queries.EndShareParams{Account: account, Reporter: reporter}); err != nil {
			return err
		}
	}
	return nil
}

func (t transaction) Elsewhere(ctx context.Context, reporter string, since time.Time, mappings []int64) (open []usage.Open, err error) {
	for _, m := range mappings {
		streams, err := t.q.Elsewhere(ctx, queries.ElsewhereParams{Mapping: m, Reporter: reporter, SeenAt: since.Unix()})
		if err != nil {
			return nil, err
		}
		if streams > 0 {
			open = append(open, usage.Open{Mapping: m, Streams: streams})
		}
	}
	return open, nil
}

func (t transaction) End(ctx context.Context, reporter string) error {
	return errors.Join(t.q.EndReporter(ctx, reporter), t.q.EndShares(ctx, reporter),
		t.q.SilenceReporter(ctx, queries.SilenceReporterParams{Reporter: reporter, SeenAt: int64(usage.Fresh / time.Second)}))
}
