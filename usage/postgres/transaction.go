package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/postgres/internal/queries"
)

// transaction is a [usage.Transaction]. Each call is one statement, whatever the number
// of lines.
type transaction struct{ q *queries.Queries }

func (t transaction) Begin(ctx context.Context, reporter, node string, now time.Time) (int64, error) {
	return t.q.Begin(ctx, queries.BeginParams{Reporter: reporter, Node: node, SeenAt: now.Unix()})
}

func (t transaction) Counted(ctx context.Context, reporter string, sequence, toTarget, toSource int64) error {
	return t.q.Counted(ctx, queries.CountedParams{Reporter: reporter, Sequence: sequence, RateToTarget: toTarget, RateToSource: toSource})
}

func (t transaction) AddBuckets(ctx context.Context, now time.Time, moved []usage.Line) error {
	var p queries.AddBucketsParams
	for _, l := range moved {
		p.Mappings, p.Accounts = append(p.Mappings, l.Mapping), append(p.Accounts, l.Account)
		p.Sources, p.Targets = append(p.Sources, l.Source), append(p.Targets, l.Target)
		p.ToTarget, p.ToSource = append(p.ToTarget, l.ToTarget), append(p.ToSource, l.ToSource)
		p.Streams = append(p.Streams, l.Streams)
	}
	for _, step := range usage.Steps {
		p.Steps, p.Ats = append(p.Steps, seconds(step)), append(p.Ats, step.Begin(now).Unix())
	}
	return t.q.AddBuckets(ctx, p)
}

func (t transaction) SetLive(ctx context.Context, reporter string, open []usage.Line) error {
	p := queries.SetLiveParams{Reporter: reporter}
	for _, l := range open {
		p.Mappings, p.Accounts = append(p.Mappings, l.Mapping), append(p.Accounts, l.Account)
		p.Sources, p.Targets = append(p.Sources, l.Source), append(p.Targets, l.Target)
		p.Streams = append(p.Streams, l.Open)
	}
	return t.q.SetLive(ctx, p)
}

func (t transaction) EndLive(ctx context.Context, reporter string, mappings []int64) error {
	return t.q.EndLive(ctx, queries.EndLiveParams{Reporter: reporter, Mappings: mappings})
}

func (t transaction) AddMonths(ctx context.Context, now time.Time, sums []usage.Sum) (map[int64]int64, error) {
	p := queries.AddMonthsParams{Month: usage.MonthOf(now).Unix()}
	for _, s := range sums {
		p.Accounts, p.Streams = append(p.Accounts, s.Account), append(p.Streams, s.Streams)
		p.ToTarget, p.ToSource = append(p.ToTarget, s.ToTarget), append(p.ToSource, s.ToSource)
	}
	rows, err := t.q.AddMonths(ctx, p)
	used := map[int64]int64{}
	for _, row := range rows {
		used[row.Account] = row.Used
	}
	return used, err
}

func (t transaction) OtherAllocations(ctx context.Context, reporter string, since time.Time, accounts []int64) (map[int64][]usage.Allocation, error) {
	rows, err := t.q.OtherShares(ctx, queries.OtherSharesParams{Reporter: reporter, Since: since.Unix(), Accounts: accounts})
	others := map[int64][]usage.Allocation{}
	for _, row := range rows {
		others[row.Account] = append(others[row.Account], usage.Allocation{Demand: row.Demand, Fraction: row.Share})
	}
	return others, err
}

func (t transaction) SetAllocations(ctx context.Context, reporter string, now time.Time, parts []usage.Part) error {
	p := queries.SetSharesParams{Reporter: reporter, SeenAt: now.Unix()}
	for _, part := range parts {
		p.Accounts, p.Demands, p.Shares = append(p.Accounts, part.Account), append(p.Demands, part.Demand), append(p.Shares, part.Fraction)
	}
	return t.q.SetShares(ctx, p)
}

func (t transaction) DropAllocations(ctx context.Context, reporter string, accounts []int64) error {
	return t.q.DropShares(ctx, queries.DropSharesParams{Reporter: reporter, Accounts: accounts})
}

func (t transaction) Elsewhere(ctx context.Context, reporter string, since time.Time, mappings []int64) (open []usage.Open, err error) {
	rows, err := t.q.Elsewhere(ctx, queries.ElsewhereParams{Mappings: mappings, Reporter: reporter, Since: since.Unix()})
	for _, row := range rows {
		open = append(open, usage.Open{Mapping: row.Mapping, Streams: row.Streams})
	}
	return open, err
}

func (t transaction) End(ctx context.Context, reporter string) error {
	return errors.Join(t.q.EndReporter(ctx, reporter), t.q.EndShares(ctx, reporter),
		t.q.SilenceReporter(ctx, queries.SilenceReporterParams{Reporter: reporter, Fresh: int64(usage.Fresh / time.Second)}))
}
