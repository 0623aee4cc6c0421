// Package sqlite counts usage in the file of the embedded log.
//
// Its duty is the contract of [usage.Store]. How: a connection of its own beside
// the log's, since a report is rare and short, and one transaction a report. A
// commit outlives the process; with the machine the last ones may be lost
// (synchronous NORMAL), which costs counts and never the log.
//
// Its limits: one process, and the schema is there: who opens the log has seen to
// both. Close it before the log.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	_ "modernc.org/sqlite" // database/sql's "sqlite"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite/internal/queries"
)

// Store counts in the file of the embedded log.
type Store struct {
	mu sync.Mutex // one at a time: the file has one writer anyway
	db *sql.DB
	q  *queries.Queries
}

var _ usage.Store = (*Store)(nil)

var pragmas = []string{"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "cache_size(-4000)"}

// Open opens a file that has the schema.
func Open(ctx context.Context, path string) (*Store, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open usage: %w", err)
	}
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open usage: %w", err), db.Close())
	}
	return &Store{db: db, q: queries.New(db)}, nil
}

// Close implements [usage.Store].
func (s *Store) Close() error { return s.db.Close() }

// Count implements [usage.Store].
func (s *Store) Count(ctx context.Context, now time.Time, r usage.Report) (answer usage.Answer, err error) {
	err = s.write(ctx, func(q *queries.Queries) error {
		answer, err = count(ctx, q, now, r)
		return err
	})
	if err != nil {
		return usage.Answer{}, fmt.Errorf("count usage: %w", err)
	}
	return answer, nil
}

// write does something as one transaction.
func (s *Store) write(ctx context.Context, do func(*queries.Queries) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(s.q.WithTx(tx)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
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
	for _, m := range r.Mappings {
		streams, err := q.Elsewhere(ctx, queries.ElsewhereParams{Mapping: m, Reporter: r.Reporter, SeenAt: fresh(now)})
		if err != nil {
			return usage.Answer{}, err
		}
		if streams > 0 {
			answer.Elsewhere = append(answer.Elsewhere, usage.Open{Mapping: m, Streams: streams})
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
		q.SilenceReporter(ctx, queries.SilenceReporterParams{Reporter: reporter, SeenAt: int64(usage.Fresh / time.Second)}))
}

// fresh is the time since which a reporter must have been heard of.
func fresh(now time.Time) int64 { return now.Add(-usage.Fresh).Unix() }

// writeLines adds to the buckets and notes the open streams.
func writeLines(ctx context.Context, q *queries.Queries, now time.Time, r usage.Report) error {
	for _, l := range r.Moved() {
		for _, step := range usage.Steps {
			err := q.AddBucket(ctx, queries.AddBucketParams{Step: seconds(step), At: step.Begin(now).Unix(),
				Mapping: l.Mapping, Account: l.Account, Source: l.Source, Target: l.Target,
				ToTarget: l.ToTarget, ToSource: l.ToSource, Streams: l.Streams})
			if err != nil {
				return err
			}
		}
	}
	for _, l := range r.Lines {
		var err error
		if l.Open == 0 {
			err = q.EndLive(ctx, queries.EndLiveParams{Reporter: r.Reporter, Mapping: l.Mapping})
		} else {
			err = q.SetLive(ctx, queries.SetLiveParams{Reporter: r.Reporter, Mapping: l.Mapping, Account: l.Account,
				Source: l.Source, Target: l.Target, Streams: l.Open})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func seconds(s usage.Step) int64 { return int64(time.Duration(s) / time.Second) }

// charge adds to the month of each account and gives what it has used then.
func charge(ctx context.Context, q *queries.Queries, now time.Time, sums []usage.Sum) (map[int64]int64, error) {
	used := map[int64]int64{}
	for _, s := range sums {
		n, err := q.AddMonth(ctx, queries.AddMonthParams{Account: s.Account, Month: usage.MonthOf(now).Unix(),
			ToTarget: s.ToTarget, ToSource: s.ToSource, Streams: s.Streams})
		if err != nil {
			return nil, err
		}
		used[s.Account] = n
	}
	return used, nil
}

// share gives the reporter its parts. Nobody else writes meanwhile.
func share(ctx context.Context, q *queries.Queries, now time.Time, r usage.Report) (map[int64]float64, error) {
	shares := map[int64]float64{}
	for _, a := range r.Asks {
		if a.Demand == 0 {
			if err := q.EndShare(ctx, queries.EndShareParams{Account: a.Account, Reporter: r.Reporter}); err != nil {
				return nil, err
			}
			continue
		}
		rows, err := q.OtherShares(ctx, queries.OtherSharesParams{Account: a.Account, Reporter: r.Reporter, SeenAt: fresh(now)})
		if err != nil {
			return nil, err
		}
		others := make([]usage.Claim, len(rows))
		for i, row := range rows {
			others[i] = usage.Claim{Demand: row.Demand, Share: row.Share}
		}
		shares[a.Account] = usage.Shared(a.Demand, others)
		err = q.SetShare(ctx, queries.SetShareParams{Account: a.Account, Reporter: r.Reporter, Demand: a.Demand,
			Share: shares[a.Account], SeenAt: now.Unix()})
		if err != nil {
			return nil, err
		}
	}
	return shares, nil
}
