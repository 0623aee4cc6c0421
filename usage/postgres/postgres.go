// Package postgres counts usage in a Postgres database that any number of
// control planes share.
//
// Its duty is the contract of [usage.Store]. How: one transaction a report. It
// takes the row of the reporter, so that a report and its repetition come one
// after the other, and then those of its accounts in rising order, so that the
// parts of an account's bandwidth are given out one at a time.
//
// Its limit: it expects the schema; who opens the log has checked it.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/primary"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/postgres/internal/queries"
)

// Store counts in a Postgres database.
type Store struct {
	pool *pgxpool.Pool
	q    *queries.Queries
}

var _ usage.Store = (*Store)(nil)

// maxConns bounds the connections: a report is short, and there is one a second
// of each forwarder.
const maxConns = 4

// sessionSettings bound how long one process can hold up the others.
var sessionSettings = map[string]string{
	"application_name":                    "tunnox usage",
	"lock_timeout":                        "2s",
	"statement_timeout":                   "5s",
	"idle_in_transaction_session_timeout": "5s",
	"default_transaction_isolation":       "read committed",
}

// Open connects to a database that has the schema.
func Open(ctx context.Context, url string) (*Store, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = maxConns
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	return &Store{pool: pool, q: queries.New(pool)}, nil
}

// Close implements [usage.Store].
func (s *Store) Close() error {
	s.pool.Close() // waits for connections in use
	return nil
}

// attempts is how often a report is tried when the database gave another
// transaction precedence.
const attempts = 3

// Count implements [usage.Store].
func (s *Store) Count(ctx context.Context, now time.Time, r usage.Report) (answer usage.Answer, err error) {
	for range attempts {
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			answer, err = count(ctx, s.q.WithTx(tx), now, r)
			return err
		})
		if !yielded(err) {
			break
		}
	}
	if err != nil {
		return usage.Answer{}, fmt.Errorf("count usage: %w", err)
	}
	return answer, nil
}

// yielded reports a deadlock or a serialization failure: nothing was written.
func yielded(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "40P01" || pgErr.Code == "40001")
}

func count(ctx context.Context, q *queries.Queries, now time.Time, r usage.Report) (usage.Answer, error) {
	last, err := q.Begin(ctx, queries.BeginParams{Reporter: r.Reporter, Node: r.Node, SeenAt: now.Unix()})
	if err != nil {
		return usage.Answer{}, err
	}
	answer := usage.Answer{Duplicate: r.Sequence <= last}
	if !answer.Duplicate {
		toTarget, toSource := r.Rate()
		if err := q.Counted(ctx, queries.CountedParams{Reporter: r.Reporter, Sequence: r.Sequence, RateToTarget: toTarget, RateToSource: toSource}); err != nil {
			return usage.Answer{}, err
		}
		if err := writeLines(ctx, q, now, r); err != nil {
			return usage.Answer{}, err
		}
	}
	used, err := charge(ctx, q, now, r.Sums(answer.Duplicate))
	if err != nil {
		return usage.Answer{}, err
	}
	shares, err := share(ctx, q, now, r)
	if err != nil {
		return usage.Answer{}, err
	}
	for _, a := range r.Asks {
		answer.Accounts = append(answer.Accounts, usage.Account{Account: a.Account, Used: used[a.Account],
			Resets: usage.NextMonth(now), Share: shares[a.Account]})
	}
	if len(r.Mappings) > 0 {
		others, err := q.Elsewhere(ctx, queries.ElsewhereParams{Mappings: r.Mappings, Reporter: r.Reporter, Since: fresh(now)})
		if err != nil {
			return usage.Answer{}, err
		}
		for _, o := range others {
			answer.Elsewhere = append(answer.Elsewhere, usage.Open{Mapping: o.Mapping, Streams: o.Streams})
		}
	}
	if r.Last {
		return answer, end(ctx, q, r.Reporter)
	}
	return answer, nil
}

// end takes the reporter out of what is there now, and keeps its number.
func end(ctx context.Context, q *queries.Queries, reporter string) error {
	return errors.Join(q.EndReporter(ctx, reporter), q.EndShares(ctx, reporter),
		q.SilenceReporter(ctx, queries.SilenceReporterParams{Reporter: reporter, Fresh: int64(usage.Fresh / time.Second)}))
}

// fresh is the time since which a reporter must have been heard of.
func fresh(now time.Time) int64 { return now.Add(-usage.Fresh).Unix() }

// writeLines adds to the buckets and notes the open streams.
func writeLines(ctx context.Context, q *queries.Queries, now time.Time, r usage.Report) error {
	if moved := r.Moved(); len(moved) > 0 {
		var p queries.AddBucketsParams
		for _, l := range moved {
			p.Mappings, p.Accounts = append(p.Mappings, l.Mapping), append(p.Accounts, l.Account)
			p.Sources, p.Targets = append(p.Sources, l.Source), append(p.Targets, l.Target)
			p.ToTarget, p.ToSource = append(p.ToTarget, l.ToTarget), append(p.ToSource, l.ToSource)
			p.Streams = append(p.Streams, l.Streams)
		}
		for _, step := range usage.Steps {
			p.Steps = append(p.Steps, int64(time.Duration(step)/time.Second))
			p.Ats = append(p.Ats, step.Begin(now).Unix())
		}
		if err := q.AddBuckets(ctx, p); err != nil {
			return err
		}
	}
	live := queries.SetLiveParams{Reporter: r.Reporter}
	var ended []int64
	for _, l := range r.Lines {
		if l.Open == 0 {
			ended = append(ended, l.Mapping)
			continue
		}
		live.Mappings, live.Accounts = append(live.Mappings, l.Mapping), append(live.Accounts, l.Account)
		live.Sources, live.Targets = append(live.Sources, l.Source), append(live.Targets, l.Target)
		live.Streams = append(live.Streams, l.Open)
	}
	if len(live.Mappings) > 0 {
		if err := q.SetLive(ctx, live); err != nil {
			return err
		}
	}
	if len(ended) == 0 {
		return nil
	}
	return q.EndLive(ctx, queries.EndLiveParams{Reporter: r.Reporter, Mappings: ended})
}

// charge adds to the month of each account and gives what it has used then.
func charge(ctx context.Context, q *queries.Queries, now time.Time, sums []usage.Sum) (map[int64]int64, error) {
	used := map[int64]int64{}
	if len(sums) == 0 {
		return used, nil
	}
	p := queries.AddMonthsParams{Month: usage.MonthOf(now).Unix()}
	for _, s := range sums {
		p.Accounts, p.Streams = append(p.Accounts, s.Account), append(p.Streams, s.Streams)
		p.ToTarget, p.ToSource = append(p.ToTarget, s.ToTarget), append(p.ToSource, s.ToSource)
	}
	rows, err := q.AddMonths(ctx, p)
	for _, row := range rows {
		used[row.Account] = row.Used
	}
	return used, err
}

// share gives the reporter its parts. The rows of the accounts are locked.
func share(ctx context.Context, q *queries.Queries, now time.Time, r usage.Report) (map[int64]float64, error) {
	if len(r.Asks) == 0 {
		return nil, nil
	}
	p := queries.OtherSharesParams{Reporter: r.Reporter, Since: fresh(now)}
	for _, a := range r.Asks {
		p.Accounts = append(p.Accounts, a.Account)
	}
	rows, err := q.OtherShares(ctx, p)
	if err != nil {
		return nil, err
	}
	others := map[int64][]usage.Claim{}
	for _, row := range rows {
		others[row.Account] = append(others[row.Account], usage.Claim{Demand: row.Demand, Share: row.Share})
	}
	shares := map[int64]float64{}
	set := queries.SetSharesParams{Reporter: r.Reporter, SeenAt: now.Unix()}
	drop := queries.DropSharesParams{Reporter: r.Reporter}
	for _, a := range r.Asks {
		if a.Demand == 0 {
			drop.Accounts = append(drop.Accounts, a.Account)
			continue
		}
		shares[a.Account] = usage.Shared(a.Demand, others[a.Account])
		set.Accounts, set.Demands = append(set.Accounts, a.Account), append(set.Demands, a.Demand)
		set.Shares = append(set.Shares, shares[a.Account])
	}
	if len(drop.Accounts) > 0 {
		err = q.DropShares(ctx, drop)
	}
	if len(set.Accounts) > 0 && err == nil {
		err = q.SetShares(ctx, set)
	}
	return shares, err
}
