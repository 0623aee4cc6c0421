package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/usage"
	"github.com/tunnox-net/tunnox/usage/sqlite"

	"path/filepath"

	log "github.com/tunnox-net/tunnox/eventstore/sqlite"
)

// newUsedWorld is a world with a store of usage, at a time.
func newUsedWorld(t *testing.T, now time.Time) (*world, usage.Store) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "usage.db")
	if _, err := log.Migrate(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return newWorld(t, func(c *httpapi.Config) {
		c.Usage, c.Clock = store, func() time.Time { return now }
	}), store
}

// shown gives a number of a body; a dot leads into an object.
func (a *answer) shown(t *testing.T, fields ...string) float64 {
	t.Helper()
	var v any = a.Body
	for _, f := range fields {
		m, _ := v.(map[string]any)
		v = m[f]
	}
	n, ok := v.(float64)
	if !ok {
		t.Errorf("%s: %v is %v in %s", a.call, fields, v, a.Text)
	}
	return n
}

func TestStatsShowWhatWasReported(t *testing.T) {
	now := time.Date(2026, time.March, 15, 10, 20, 30, 0, time.UTC)
	w, store := newUsedWorld(t, now)
	ann, bob := w.user("ann"), w.user("bob")
	home, office := w.client(ann, "home"), w.client(ann, "office")
	other := w.client(bob, "other")
	m := w.mapping(ann, home, office, 8000)
	w.do("PUT", path("users", ann, "quota"), fields{"monthly_traffic_limit": 1000}).want(200)
	sequence := int64(0)
	carry := func(at time.Time, account, source, target int64, toTarget, toSource, streams, open int64) {
		t.Helper()
		sequence++
		_, err := store.Count(t.Context(), at, usage.Report{Reporter: "a", Node: "node-001", Sequence: sequence, Span: time.Second,
			Lines: []usage.Line{{Mapping: m, Account: account, Source: source, Target: target, Open: open,
				Traffic: usage.Traffic{ToTarget: toTarget, ToSource: toSource, Streams: streams}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	carry(now.AddDate(0, -1, 0), ann, home, office, 5, 5, 1, 0) // of February
	carry(now.AddDate(0, 0, -3), ann, home, office, 100, 0, 1, 0)
	carry(now.Add(-2*time.Hour), ann, home, office, 20, 0, 1, 0)
	carry(now, ann, home, office, 3, 4, 2, 2)

	u := w.do("GET", path("stats", "users", ann), nil).want(200)
	for _, want := range []struct {
		n      float64
		fields []string
	}{{127, []string{"current_month_traffic"}}, {1000, []string{"monthly_traffic_limit"}}, {2, []string{"connections_open"}},
		{123, []string{"current_month", "to_target"}}, {4, []string{"current_month", "to_source"}}, {4, []string{"current_month", "connections"}}} {
		if got := u.shown(t, want.fields...); got != want.n {
			t.Errorf("user %v: %v, want %v", want.fields, got, want.n)
		}
	}
	if u.Body["resets_at"] != "2026-04-01T00:00:00Z" {
		t.Errorf("the month ends at %v", u.Body["resets_at"])
	}
	c := w.do("GET", path("stats", "clients", office), nil).want(200)
	if c.shown(t, "today", "total") != 27 || c.shown(t, "current_month", "total") != 127 || c.shown(t, "connections_open") != 2 {
		t.Errorf("client: %s", c.Text)
	}
	if none := w.do("GET", path("stats", "clients", other), nil).want(200); none.shown(t, "current_month", "total") != 0 {
		t.Errorf("another client: %s", none.Text)
	}
	list := w.do("GET", path("stats", "users")+"?limit=1", nil).want(200)
	if got := list.items("user_id"); len(got) != 1 || got[0] != ann || list.id("next") != ann {
		t.Errorf("first page %s", list.Text)
	}
	system := w.do("GET", path("stats", "system"), nil).want(200)
	system.has(fields{"users": 2, "clients": 3, "mappings": 1, "nodes": 1, "connections_open": 2})
	if system.shown(t, "current_month", "total") != 127 || system.shown(t, "today", "total") != 27 {
		t.Errorf("system: %s", system.Text)
	}
	w.do("GET", path("stats", "realtime"), nil).want(200).has(fields{"nodes": 1, "connections_open": 2,
		"to_target_per_second": 3, "to_source_per_second": 4, "bytes_per_second": 7})
	q := w.do("GET", path("users", ann, "quota"), nil).want(200).has(fields{"current_month_traffic": 127, "monthly_traffic_limit": 1000})

	// What has been used changes what is read, and not what is written.
	tag := q.Header.Get("ETag")
	w.do("GET", path("users", ann, "quota"), nil, "If-None-Match", tag).want(304)
	carry(now, ann, home, office, 1, 0, 0, 2)
	w.do("GET", path("users", ann, "quota"), nil, "If-None-Match", tag).want(200).has(fields{"current_month_traffic": 128})
	w.do("PUT", path("users", ann, "quota"), fields{"monthly_traffic_limit": nil}, "If-Match", tag).want(200).has(fields{"current_month_traffic": 128})
}

func TestTrafficIsFitForAChart(t *testing.T) {
	now := time.Date(2026, time.March, 15, 10, 20, 30, 0, time.UTC)
	w, store := newUsedWorld(t, now)
	ann := w.user("ann")
	home := w.client(ann, "home")
	m := w.mapping(ann, home, home, 8000)
	ages := []time.Duration{0, 30 * time.Second, 10 * time.Minute, 59*time.Minute + 30*time.Second, 5 * time.Hour, 26 * time.Hour, 6 * 24 * time.Hour, 20 * 24 * time.Hour, 40 * 24 * time.Hour}
	for i, age := range ages {
		_, err := store.Count(t.Context(), now.Add(-age), usage.Report{Reporter: "a", Sequence: int64(i + 1),
			Lines: []usage.Line{{Mapping: m, Account: ann, Source: home, Target: home, Traffic: usage.Traffic{ToTarget: 1 << i}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, from, to string
		count, step    int
		total          float64
	}{
		{"1h", "2026-03-15T09:21:00Z", "2026-03-15T10:21:00Z", 60, 60, 1 + 2 + 4 + 8},
		{"24h", "2026-03-14T11:00:00Z", "2026-03-15T11:00:00Z", 24, 3600, 31},
		{"7d", "2026-03-08T12:00:00Z", "2026-03-15T12:00:00Z", 28, 6 * 3600, 127},
		{"30d", "2026-02-14T00:00:00Z", "2026-03-16T00:00:00Z", 30, 86400, 255},
	} {
		for _, subject := range []string{"", fmt.Sprint("&user_id=", ann), fmt.Sprint("&client_id=", home), fmt.Sprint("&mapping_id=", m)} {
			a := w.do("GET", path("stats", "traffic")+"?range="+c.name+subject, nil).want(200)
			a.has(fields{"range": c.name, "from": c.from, "to": c.to, "step_seconds": c.step})
			buckets := a.Body["buckets"].([]any)
			if len(buckets) != c.count {
				t.Fatalf("%s has %d buckets", c.name, len(buckets))
			}
			sum, last := 0.0, ""
			for _, b := range buckets {
				bucket := b.(map[string]any)
				sum += bucket["total"].(float64)
				if from := bucket["from"].(string); from <= last {
					t.Errorf("%s: %s behind %s", c.name, from, last)
				} else {
					last = from
				}
			}
			if sum != c.total || a.shown(t, "total", "total") != c.total {
				t.Errorf("%s%s adds up to %v and says %v, want %v", c.name, subject, sum, a.shown(t, "total", "total"), c.total)
			}
		}
	}
	w.do("GET", path("stats", "traffic")+"?range=1y", nil).fault(422, "invalid", "query.range")
	w.do("GET", path("stats", "traffic")+fmt.Sprintf("?user_id=%d&client_id=%d", ann, home), nil).fault(422, "invalid", "query")
	w.do("GET", path("stats", "traffic")+"?user_id=5", nil).fault(404, "user_not_found")
}

// Everybody sees their own, admins see all.
func TestStatsAreTheirOwners(t *testing.T) {
	w, store := newUsedWorld(t, time.Now())
	ann, bob := w.person("ann", "user"), w.person("bob", "user")
	c := w.client(bob.id, "home")
	m := w.mapping(bob.id, c, c, 8000)
	_, err := store.Count(t.Context(), time.Now(), usage.Report{Reporter: "a", Sequence: 1,
		Lines: []usage.Line{{Mapping: m, Account: bob.id, Source: c, Target: c, Traffic: usage.Traffic{ToTarget: 7}}}})
	if err != nil {
		t.Fatal(err)
	}
	if a := bob.do("GET", path("stats", "traffic"), nil).want(200); a.shown(t, "total", "total") != 7 {
		t.Errorf("bob's own: %s", a.Text)
	}
	if a := ann.do("GET", path("stats", "traffic"), nil).want(200); a.shown(t, "total", "total") != 0 {
		t.Errorf("ann sees: %s", a.Text)
	}
	if got := bob.do("GET", path("stats", "users"), nil).want(200).items("user_id"); len(got) != 1 || got[0] != bob.id {
		t.Errorf("bob's list: %v", got)
	}
	for query, code := range map[string]string{fmt.Sprint("user_id=", bob.id): "user_not_found",
		fmt.Sprint("client_id=", c): "client_not_found", fmt.Sprint("mapping_id=", m): "mapping_not_found"} {
		ann.do("GET", path("stats", "traffic")+"?"+query, nil).fault(404, code)
		bob.do("GET", path("stats", "traffic")+"?"+query, nil).want(200)
	}
	ann.do("GET", path("stats", "users", bob.id), nil).want(404)
	ann.do("GET", path("stats", "clients", c), nil).want(404)
	for _, route := range []string{"system", "realtime"} {
		ann.do("GET", path("stats", route), nil).want(403)
	}
}

// noneUsed is a store in which nothing was counted.
type noneUsed struct{}

func (noneUsed) Months(context.Context, time.Time, ...int64) (map[int64]usage.Traffic, error) {
	return nil, nil
}
func (noneUsed) Series(context.Context, usage.Subject, usage.Step, time.Time, time.Time) ([]usage.Bucket, error) {
	return nil, nil
}
func (noneUsed) Live(context.Context, time.Time, usage.Kind, ...int64) (map[int64]int64, error) {
	return nil, nil
}
func (noneUsed) Rates(context.Context, time.Time) (usage.Rates, error) { return usage.Rates{}, nil }

// brokenUsage is a database that is away.
type brokenUsage struct{ usage.Store }

var errBroken = errors.New("the database is away")

func (brokenUsage) Months(context.Context, time.Time, ...int64) (map[int64]usage.Traffic, error) {
	return nil, errBroken
}
func (brokenUsage) Series(context.Context, usage.Subject, usage.Step, time.Time, time.Time) ([]usage.Bucket, error) {
	return nil, errBroken
}
func (brokenUsage) Live(context.Context, time.Time, usage.Kind, ...int64) (map[int64]int64, error) {
	return nil, errBroken
}
func (brokenUsage) Rates(context.Context, time.Time) (usage.Rates, error) {
	return usage.Rates{}, errBroken
}

// What cannot be read is said, and a quota can be read without it.
func TestStatsWithoutTheirStore(t *testing.T) {
	for name, store := range map[string]httpapi.Usage{"none": nil, "broken": brokenUsage{}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *httpapi.Config) { c.Usage = store })
			ann := w.user("ann")
			c := w.client(ann, "home")
			for _, route := range []string{"system", "realtime", "users", "traffic", fmt.Sprint("users/", ann), fmt.Sprint("clients/", c)} {
				w.do("GET", path("stats", route), nil).fault(503, "usage_unavailable")
			}
			if q := w.do("GET", path("users", ann, "quota"), nil).want(200); q.Body["current_month_traffic"] != nil {
				t.Errorf("the quota shows %v", q.Body["current_month_traffic"])
			}
		})
	}
}
