package sqlite

import (
	"context"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore/sqlite/internal/queries"
)

// conditions turns a query into SQL. The text contains only the conditions that the
// query has, because no index fits a statement with every condition. Only constants are
// put together; values are arguments.
func conditions(q domain.Query) (where string, args []any) {
	and := func(condition string, values ...any) {
		if where == "" {
			where = " WHERE " + condition
		} else {
			where += " AND " + condition
		}
		args = append(args, values...)
	}
	and("position > ?", int64(q.After))
	if q.Before != 0 {
		and("position < ?", int64(q.Before))
	}
	if q.Subject != "" {
		and("stream = ?", string(q.Subject))
	}
	if q.Owner != 0 {
		and("owner = ?", q.Owner)
	}
	if q.Actor != "" {
		and("meta ->> 'actor' = ?", q.Actor)
	}
	if len(q.Names) > 0 {
		names := make([]any, len(q.Names))
		for i, name := range q.Names {
			names[i] = name
		}
		and("name IN (?"+strings.Repeat(", ?", len(names)-1)+")", names...)
	}
	return where, args
}

// Select implements [eventstore.Store].
func (s *Store) Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error) {
	where, args := conditions(q)
	order := "position"
	if q.Subject != "" {
		order = "version" // the same order, and the order of the index
	}
	if q.Newest {
		order += " DESC"
	}
	records := []domain.Record{}
	var broken error // a record that cannot be read, not an error of the database
	err := s.read.EachOf(ctx, "SELECT "+queries.RecordColumns+" FROM records"+where+" ORDER BY "+order+" LIMIT ?", append(args, limit),
		func(row *queries.ReadAllRow) error {
			var r domain.Record
			if r, broken = record(row); broken != nil {
				return broken
			}
			records = append(records, r)
			return nil
		})
	if broken != nil {
		return nil, broken
	}
	if err != nil {
		return nil, failure(ctx, "search the log", err)
	}
	return slices.Clip(records), nil
}

// Count implements [eventstore.Store].
func (s *Store) Count(ctx context.Context, q domain.Query) (n int64, err error) {
	where, args := conditions(q)
	if err := s.reader.QueryRowContext(ctx, "SELECT count(*) FROM records"+where, args...).Scan(&n); err != nil {
		return 0, failure(ctx, "count records of the log", err)
	}
	return n, nil
}

// Holders implements [eventstore.Store].
func (s *Store) Holders(ctx context.Context, claims []domain.Claim) ([]domain.StreamID, error) {
	holders := make([]domain.StreamID, len(claims))
	for i, c := range claims {
		owner, err := s.read.Claim(ctx, queries.ClaimParams{Scope: c.Scope, Value: c.Value})
		if _, err := rowFound(err); err != nil {
			return nil, failure(ctx, "look for claims", err)
		}
		holders[i] = domain.StreamID(owner)
	}
	return holders, nil
}
