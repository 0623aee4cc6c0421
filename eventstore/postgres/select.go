package postgres

import (
	"context"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore/postgres/internal/queries"
)

// recordColumns are the columns of a record, in the order of queries.ReadAllRow.
const recordColumns = "position, stream, version, owner, name, schema, event_id, data, meta, recorded_at"

// conditions turns a query into SQL. The text contains only the conditions that the
// query has, because sessions plan a statement once: the plan for a statement with
// every condition would read the whole log. Only constants are put together; values are
// arguments.
func conditions(q domain.Query) (where string, args []any) {
	and := func(condition string, value any) {
		args = append(args, value)
		if where == "" {
			where = " WHERE "
		} else {
			where += " AND "
		}
		where += strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
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
	if len(q.Names) == 1 {
		and("name = ?", q.Names[0]) // in the order of the index, which several names are not
	} else if len(q.Names) > 1 {
		and("name = ANY (?)", q.Names)
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
	args = append(args, limit)
	rows, err := s.pool.Query(ctx, "SELECT "+recordColumns+" FROM es.records"+where+" ORDER BY "+order+" LIMIT $"+strconv.Itoa(len(args)), args...)
	if err != nil {
		return nil, failure(ctx, "search the log", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[queries.ReadAllRow])
	if err != nil {
		return nil, failure(ctx, "search the log", err)
	}
	records := make([]domain.Record, len(found))
	for i, row := range found {
		if records[i], err = record(row); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Count implements [eventstore.Store].
func (s *Store) Count(ctx context.Context, q domain.Query) (n int64, err error) {
	where, args := conditions(q)
	if err := s.pool.QueryRow(ctx, "SELECT count(*) FROM es.records"+where, args...).Scan(&n); err != nil {
		return 0, failure(ctx, "count records of the log", err)
	}
	return n, nil
}

// Holders implements [eventstore.Store].
func (s *Store) Holders(ctx context.Context, claims []domain.Claim) ([]domain.StreamID, error) {
	holders := make([]domain.StreamID, len(claims))
	if len(claims) == 0 {
		return holders, nil
	}
	p := queries.StateParams{Streams: []string{}, KeyScopes: []string{}, Keys: []string{}}
	for _, c := range claims {
		p.ClaimScopes, p.ClaimValues = append(p.ClaimScopes, c.Scope), append(p.ClaimValues, c.Value)
	}
	rows, err := s.q.State(ctx, p)
	if err != nil {
		return nil, failure(ctx, "look for claims", err)
	}
	for _, r := range rows {
		for i, c := range claims {
			if r.Kind == "c" && r.Name == c.Scope && r.Value == c.Value {
				holders[i] = domain.StreamID(r.Owner)
			}
		}
	}
	return holders, nil
}
