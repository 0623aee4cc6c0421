package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite/internal/queries"
)

// Months implements [usage.Store].
func (s *Store) Months(ctx context.Context, t time.Time, accounts ...int64) (map[int64]usage.Traffic, error) {
	months := map[int64]usage.Traffic{}
	for _, account := range accounts {
		row, err := s.q.Month(ctx, queries.MonthParams{Account: account, Month: usage.MonthOf(t).Unix()})
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a month's usage: %w", err)
		}
		if t := (usage.Traffic{ToTarget: row.ToTarget, ToSource: row.ToSource, Streams: row.Streams}); t != (usage.Traffic{}) {
			months[account] = t
		}
	}
	return months, nil
}

// Series implements [usage.Store].
func (s *Store) Series(ctx context.Context, of usage.Subject, step usage.Step, from, to time.Time) (buckets []usage.Bucket, err error) {
	width, since, until := seconds(step), from.Unix(), to.Unix()
	add := func(at, toTarget, toSource, streams int64) {
		buckets = append(buckets, usage.Bucket{At: time.Unix(at, 0).UTC(),
			Traffic: usage.Traffic{ToTarget: toTarget, ToSource: toSource, Streams: streams}})
	}
	switch of.Kind {
	case usage.OfAccount:
		var rows []queries.SeriesOfAccountRow
		rows, err = s.q.SeriesOfAccount(ctx, queries.SeriesOfAccountParams{Account: of.ID, Step: width, At: since, At_2: until})
		for _, r := range rows {
			add(r.At, r.ToTarget, r.ToSource, r.Streams)
		}
	case usage.OfClient:
		var rows []queries.SeriesOfClientRow
		rows, err = s.q.SeriesOfClient(ctx, queries.SeriesOfClientParams{Source: of.ID, Step: width, At: since, At_2: until})
		for _, r := range rows {
			add(r.At, r.ToTarget, r.ToSource, r.Streams)
		}
	case usage.OfMapping:
		var rows []queries.SeriesOfMappingRow
		rows, err = s.q.SeriesOfMapping(ctx, queries.SeriesOfMappingParams{Mapping: of.ID, Step: width, At: since, At_2: until})
		for _, r := range rows {
			add(r.At, r.ToTarget, r.ToSource, r.Streams)
		}
	default:
		var rows []queries.SeriesRow
		rows, err = s.q.Series(ctx, queries.SeriesParams{Step: width, At: since, At_2: until})
		for _, r := range rows {
			add(r.At, r.ToTarget, r.ToSource, r.Streams)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	return buckets, nil
}

// Live implements [usage.Store].
func (s *Store) Live(ctx context.Context, now time.Time, of usage.Kind, ids ...int64) (map[int64]int64, error) {
	live := map[int64]int64{}
	for _, id := range ids {
		var streams int64
		var err error
		switch of {
		case usage.OfAccount:
			streams, err = s.q.LiveOfAccount(ctx, queries.LiveOfAccountParams{Account: id, SeenAt: fresh(now)})
		case usage.OfClient:
			streams, err = s.q.LiveOfClient(ctx, queries.LiveOfClientParams{Source: id, SeenAt: fresh(now)})
		case usage.OfMapping:
			streams, err = s.q.LiveOfMapping(ctx, queries.LiveOfMappingParams{Mapping: id, SeenAt: fresh(now)})
		}
		if err != nil {
			return nil, fmt.Errorf("read open streams: %w", err)
		}
		if streams > 0 {
			live[id] = streams
		}
	}
	return live, nil
}

// Rates implements [usage.Store].
func (s *Store) Rates(ctx context.Context, now time.Time) (usage.Rates, error) {
	r, err := s.q.Rates(ctx, fresh(now))
	if err != nil {
		return usage.Rates{}, fmt.Errorf("read rates: %w", err)
	}
	streams, err := s.q.LiveStreams(ctx, fresh(now))
	if err != nil {
		return usage.Rates{}, fmt.Errorf("read open streams: %w", err)
	}
	return usage.Rates{Nodes: int(r.Nodes), ToTarget: r.ToTarget, ToSource: r.ToSource, Streams: streams}, nil
}

// Prune implements [usage.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) error {
	return s.write(ctx, func(q *queries.Queries) error { return prune(ctx, q, now) })
}

func prune(ctx context.Context, q *queries.Queries, now time.Time) error {
	for _, step := range usage.Steps {
		if err := q.PruneBuckets(ctx, queries.PruneBucketsParams{Step: seconds(step), At: now.Add(-step.Kept()).Unix()}); err != nil {
			return err
		}
	}
	if err := q.PruneMonths(ctx, now.Add(-usage.KeptMonths).Unix()); err != nil {
		return err
	}
	// Open streams of a silent reporter are not counted any more. The reporter may
	// return within the hour and report them again, so their rows are kept for an hour.
	gone := now.Add(-time.Hour).Unix()
	if err := q.PruneLive(ctx, gone); err != nil {
		return err
	}
	if err := q.PruneShares(ctx, gone); err != nil {
		return err
	}
	return q.PruneReporters(ctx, now.Add(-usage.KeptReporters).Unix())
}

// fresh gives the time after which a reporter's last report must have come.
func fresh(now time.Time) int64 { return now.Add(-usage.Fresh).Unix() }

func seconds(s usage.Step) int64 { return int64(time.Duration(s) / time.Second) }
