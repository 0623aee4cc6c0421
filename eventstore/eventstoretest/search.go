package eventstoretest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// Select implements [eventstore.Store].
func (m *Memory) Select(ctx context.Context, q domain.Query, limit int) ([]domain.Record, error) {
	found, err := m.find(ctx, math.MaxInt, q.Selects)
	if q.Newest {
		slices.Reverse(found)
	}
	return found[:min(limit, len(found))], err
}

// Count implements [eventstore.Store].
func (m *Memory) Count(ctx context.Context, q domain.Query) (int64, error) {
	found, err := m.find(ctx, math.MaxInt, q.Selects)
	return int64(len(found)), err
}

// Holders implements [eventstore.Store].
func (m *Memory) Holders(ctx context.Context, claims []domain.Claim) ([]domain.StreamID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	holders := make([]domain.StreamID, len(claims))
	for i, c := range claims {
		for _, held := range m.claims {
			if held.Scope == c.Scope && held.Value == c.Value {
				holders[i] = held.Owner
			}
		}
	}
	return holders, ctx.Err()
}

// testSearch compares every search with a search of the whole log.
func testSearch(t *testing.T, open Open) {
	s := open(t)
	ctx := context10s(t)
	for i := range 120 {
		a := one(domain.StreamID(fmt.Sprintf("user-%d", 1+i%7)), eventstore.Any, 1+i%2)
		a.Account = int64(i % 3) // 0 is nobody
		a.Meta.Actor = []string{"user:1", "key:it's \"é\"", "system"}[i%5%3]
		a.Events[0].Name = []string{"happened", "ended", "changed"}[i%4%3]
		if i%10 == 0 {
			a.Events[0].Owner = 9
		}
		must(t, s, a)
	}
	all := whole(t, s)
	for i, base := range []domain.Query{
		{}, {Subject: "user-3"}, {Subject: "user-99"}, {Owner: 1}, {Owner: 9}, {Owner: 42}, {Actor: "user:1"}, {Actor: "key:it's \"é\""}, {Actor: "' OR 1"},
		{Names: []string{"ended"}}, {Names: []string{"ended", "changed", "never"}}, {Names: []string{"never"}},
		{Subject: "user-3", Owner: 2, Actor: "system", Names: []string{"happened", "ended"}},
	} {
		for _, span := range [][2]domain.Position{{0, 0}, {50, 0}, {0, 50}, {31, 99}, {60, 60}, {1000, 0}} {
			for _, newest := range []bool{false, true} {
				q := base
				q.After, q.Before, q.Newest = span[0], span[1], newest
				var want []domain.Position
				for _, r := range all {
					if q.Selects(r) {
						want = append(want, r.Position)
					}
				}
				if n, err := s.Count(ctx, q); err != nil || n != int64(len(want)) {
					t.Errorf("query %d %v: count %d, %v, want %d", i, span, n, err, len(want))
				}
				if newest {
					slices.Reverse(want)
				}
				if got := positionsOf(t, s, q, 1000, all); !slices.Equal(got, want) {
					t.Errorf("query %d %v newest %t: positions\n%v, want\n%v", i, span, newest, got, want)
				}
				if got := positionsOf(t, s, q, 3, all); !slices.Equal(got, want[:min(3, len(want))]) {
					t.Errorf("query %d %v newest %t: a page of 3 is %v, want the first of %v", i, span, newest, got, want)
				}
			}
		}
	}
}

// positionsOf selects records, and checks that they are those of the log.
func positionsOf(t testing.TB, s eventstore.Store, q domain.Query, limit int, all []domain.Record) (positions []domain.Position) {
	t.Helper()
	found, err := s.Select(context10s(t), q, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range found {
		positions = append(positions, r.Position)
		if want := all[r.Position-1]; r.ID != want.ID || string(r.Data) != string(want.Data) || r.Meta != want.Meta || !r.Recorded.Equal(want.Recorded) {
			t.Errorf("record %d is %+v, want %+v", r.Position, r, want)
		}
	}
	return positions
}

func testHolders(t *testing.T, open Open) {
	s := open(t)
	a := one("user-1", eventstore.NotExist, 1)
	a.Claims = []domain.Claim{{Scope: "name", Value: "ann", Owner: "user-1"}, {Scope: "mail", Value: "ann", Owner: "user-1"}}
	must(t, s, a)
	a = one("user-1", 1, 1)
	a.Releases = []domain.Claim{{Scope: "mail", Value: "ann", Owner: "user-1"}}
	must(t, s, a)
	got, err := s.Holders(context10s(t), []domain.Claim{{Scope: "mail", Value: "ann"}, {Scope: "name", Value: "ann"}, {Scope: "name", Value: "bob", Owner: "user-1"}})
	if err != nil || !slices.Equal(got, []domain.StreamID{"", "user-1", ""}) {
		t.Errorf("holders %q, %v, want only user-1 of the name", got, err)
	}
	if got, err := s.Holders(context10s(t), nil); err != nil || len(got) != 0 {
		t.Errorf("holders of no claims: %q, %v", got, err)
	}
}
