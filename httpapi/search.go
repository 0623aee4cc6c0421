package httpapi

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// RecordFilter is what the ways to read the log have in common.
type RecordFilter struct {
	Actor   string    `query:"actor" maxLength:"200" doc:"Only events of this actor" example:"key:admin"`
	Subject string    `query:"subject" maxLength:"64" doc:"Only events of one event stream" example:"mapping-1001"`
	Type    []string  `query:"type" maxItems:"50" doc:"Only events with these names, separated by commas" example:"mapping_created,mapping_deleted"`
	Owner   int64     `query:"owner" minimum:"0" doc:"Only events of this account" example:"100000001"`
	From    time.Time `query:"from" doc:"Only events that were recorded at this time or later" example:"2026-01-02T15:04:05Z"`
	To      time.Time `query:"to" doc:"Only events that were recorded before this time" example:"2026-01-03T00:00:00Z"`
}

// query checks the filter and turns it into one over positions.
func (a *api) query(ctx context.Context, f RecordFilter) (domain.Query, error) {
	q := domain.Query{Actor: f.Actor, Owner: f.Owner, Names: f.Type}
	if who := identity(ctx); !who.admin() {
		// A user sees what belongs to the account, also where an admin did it.
		if q.Owner != 0 && q.Owner != who.UserID {
			return q, invalid("query.owner", "must be your own account, or left out")
		}
		q.Owner = who.UserID
	}
	if f.Subject != "" {
		subject, err := domain.ParseStreamID(f.Subject)
		if err != nil {
			return q, invalid("query.subject", "must be a kind and a number, for example mapping-1001")
		}
		q.Subject = subject
	}
	for _, name := range f.Type {
		if known := domain.EventNames(); !slices.Contains(known, name) {
			return q, invalid("query.type", "is no event; there are "+strings.Join(known, ", "))
		}
	}
	var err error
	if !f.From.IsZero() {
		if q.After, err = a.positionAt(ctx, f.From.Add(-time.Microsecond)); err != nil {
			return q, a.unreadable(ctx, err)
		}
	}
	if !f.To.IsZero() {
		var last domain.Position
		if last, err = a.positionAt(ctx, f.To.Add(-time.Microsecond)); err != nil {
			return q, a.unreadable(ctx, err)
		}
		q.Before = last + 1
	}
	return q, nil
}

// last gives the record at the end of the log; that of an empty one is at 0.
func (a *api) last(ctx context.Context) (domain.Record, error) {
	last, err := a.config.Search.Select(ctx, domain.Query{Newest: true}, 1)
	if err != nil || len(last) == 0 {
		return domain.Record{}, err
	}
	return last[0], nil
}

// head gives the position of the end of the log.
func (a *api) head(ctx context.Context) (domain.Position, error) {
	last, err := a.last(ctx)
	return last.Position, err
}

// positionAt gives the last position that was recorded at or before a time, 0
// when none was. Recorded times rise with positions, so that some twenty records
// are looked at whatever the length of the log.
func (a *api) positionAt(ctx context.Context, t time.Time) (domain.Position, error) {
	last, err := a.last(ctx)
	if err != nil {
		return 0, err
	}
	head := last.Position
	later := sort.Search(int(head), func(i int) bool { // of position i+1
		if err != nil {
			return false
		}
		var at []domain.Record
		if at, err = a.config.History.ReadAll(ctx, domain.Position(i), 1); err != nil {
			return false
		}
		if len(at) != 1 {
			err = fmt.Errorf("record %d is missing", i+1)
			return false
		}
		return at[0].Recorded.After(t)
	})
	if now := a.now(); err == nil && last.Recorded.After(now) {
		return a.positionAhead(ctx, t, domain.Position(later), head)
	}
	return domain.Position(later), err
}

// maxAhead bounds how many records are looked at one by one.
const maxAhead = 20_000

// positionAhead is positionAt of a log that is ahead of the clock, which was fast
// and was put right. What was written since has a recorded time that is yet to
// come; when its command came in tells better. So it is looked for from the end,
// down to what the recorded times say.
func (a *api) positionAhead(ctx context.Context, t time.Time, floor, head domain.Position) (domain.Position, error) {
	const page = 500
	lowest := max(floor, head-maxAhead)
	for end := head; end > lowest; end = max(lowest, end-page) {
		begin := max(lowest, end-page)
		records, err := a.config.History.ReadAll(ctx, begin, int(end-begin))
		if err != nil {
			return 0, err
		}
		for _, r := range slices.Backward(records) {
			if !r.Meta.At.After(t) {
				return r.Position, nil
			}
		}
	}
	return floor, nil
}
