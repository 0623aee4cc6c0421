package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/usage"
)

// codeUsageUnavailable: what was used cannot be read now.
const codeUsageUnavailable = "usage_unavailable"

// TrafficSum is what has gone through in some time.
type TrafficSum struct {
	ToTarget    int64 `json:"to_target" doc:"Bytes from source agents to target agents" example:"1048576"`
	ToSource    int64 `json:"to_source" doc:"Bytes from target agents to source agents" example:"52428800"`
	Total       int64 `json:"total" doc:"Both directions; limits count both" example:"53477376"`
	Connections int64 `json:"connections" doc:"The number of connections that began" example:"12"`
}

func sumOf(t usage.Traffic) TrafficSum {
	return TrafficSum{ToTarget: t.ToTarget, ToSource: t.ToSource, Total: t.Bytes(), Connections: t.Streams}
}

// SystemStats is what there is, and what has gone through.
type SystemStats struct {
	Users           int64      `json:"users" doc:"The number of users; up to 5 s old, like clients and mappings" example:"120"`
	Clients         int64      `json:"clients" doc:"The number of clients, with anonymous ones" example:"450"`
	Mappings        int64      `json:"mappings" doc:"The present number" example:"300"`
	Nodes           int        `json:"nodes" doc:"The forwarders that run now" example:"3"`
	ConnectionsOpen int64      `json:"connections_open" example:"250"`
	Today           TrafficSum `json:"today" doc:"Since midnight, UTC"`
	CurrentMonth    TrafficSum `json:"current_month" doc:"Since the first of the month, UTC"`
}

// RealtimeStats is what flows now.
type RealtimeStats struct {
	At                time.Time `json:"at" example:"2026-01-02T15:04:05Z"`
	Nodes             int       `json:"nodes" doc:"The forwarders that run now" example:"3"`
	ConnectionsOpen   int64     `json:"connections_open" example:"250"`
	ToTargetPerSecond int64     `json:"to_target_per_second" doc:"Bytes per second, in the last reported second" example:"1048576"`
	ToSourcePerSecond int64     `json:"to_source_per_second" example:"2097152"`
	BytesPerSecond    int64     `json:"bytes_per_second" doc:"Both directions" example:"3145728"`
}

// UserStats is what a user has used. Traffic is counted for who owns a mapping,
// whoever's clients it passes through.
type UserStats struct {
	UserID              int64      `json:"user_id" example:"100000001"`
	Username            string     `json:"username" example:"ann"`
	ConnectionsOpen     int64      `json:"connections_open" example:"7"`
	CurrentMonthTraffic int64      `json:"current_month_traffic" doc:"Bytes of both directions in this calendar month (UTC)" example:"53477376"`
	MonthlyTrafficLimit *int64     `json:"monthly_traffic_limit" doc:"null = unlimited" example:"1099511627776"`
	ResetsAt            time.Time  `json:"resets_at" doc:"The beginning of the next month" example:"2026-02-01T00:00:00Z"`
	CurrentMonth        TrafficSum `json:"current_month"`
}

// ClientStats is what has gone through a client, as source or as target.
type ClientStats struct {
	ClientID        int64      `json:"client_id" example:"600000000"`
	UserID          *int64     `json:"user_id" doc:"null for an anonymous client" example:"100000001"`
	ConnectionsOpen int64      `json:"connections_open" example:"7"`
	Today           TrafficSum `json:"today" doc:"Since midnight, UTC"`
	CurrentMonth    TrafficSum `json:"current_month" doc:"Since the first of the month, UTC"`
}

// TrafficStats is a chart of traffic. Every bucket of the range is there, also
// those in which nothing was carried; the last one is the present.
type TrafficStats struct {
	Range       string          `json:"range" enum:"1h,24h,7d,30d" example:"24h"`
	From        time.Time       `json:"from" example:"2026-01-01T16:00:00Z"`
	To          time.Time       `json:"to" example:"2026-01-02T16:00:00Z"`
	StepSeconds int64           `json:"step_seconds" doc:"The width of a bucket" example:"3600"`
	Total       TrafficSum      `json:"total"`
	Buckets     []TrafficBucket `json:"buckets" nullable:"false"`
}

// TrafficBucket is one bar of the chart.
type TrafficBucket struct {
	From time.Time `json:"from" doc:"The beginning of the bucket" example:"2026-01-02T15:00:00Z"`
	TrafficSum
}

// chart is a range of /stats/traffic: how wide its buckets are, how many, and of
// which of the steps that are kept they are made.
type chart struct {
	width time.Duration
	count int
	of    usage.Step
}

var charts = map[string]chart{
	"1h":  {time.Minute, 60, usage.Minute},
	"24h": {time.Hour, 24, usage.Hour},
	"7d":  {6 * time.Hour, 28, usage.Hour},
	"30d": {24 * time.Hour, 30, usage.Day},
}

type trafficInput struct {
	Range     string `query:"range" enum:"1h,24h,7d,30d" default:"24h" doc:"How far back"`
	UserID    int64  `query:"user_id" minimum:"0" doc:"Only traffic of this user's mappings" example:"100000001"`
	ClientID  int64  `query:"client_id" minimum:"0" doc:"Only traffic of this client" example:"600000000"`
	MappingID int64  `query:"mapping_id" minimum:"0" doc:"Only traffic of this mapping" example:"1001"`
}

// statsPath asks about one thing. Counters have no position and no past, so that
// there is neither Min-Position nor as_of.
type statsPath struct{ IDPath }

// statsPage asks for one page, like PageInput.
type statsPage struct {
	After int64 `query:"after" minimum:"0" doc:"Only items with a higher id. Use next of the previous page" example:"100000001"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to return"`
}

func (a *api) registerStats() {
	op := func(path, id, summary string, errs ...int) huma.Operation {
		return operation(http.MethodGet, "/stats"+path, id, "stats", summary, errs...)
	}
	huma.Register(a.huma, op("/system", "system-stats", "Show what there is and what has gone through"), a.systemStats)
	huma.Register(a.huma, op("/realtime", "realtime-stats", "Show what flows now"), a.realtimeStats)
	huma.Register(a.huma, op("/users", "list-user-stats", "List what users have used", errorsOfList...), a.listUserStats)
	huma.Register(a.huma, op("/users/{id}", "user-stats", "Show what a user has used", errorsOfGet...), a.userStats)
	huma.Register(a.huma, op("/clients/{id}", "client-stats", "Show what has gone through a client", errorsOfGet...), a.clientStats)
	huma.Register(a.huma, op("/traffic", "traffic-stats", "Show traffic over time, as buckets for a chart", errorsOfGet...), a.trafficStats)
}

// uncounted is the answer when what was used cannot be read.
func (a *api) uncounted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		a.logger.WarnContext(ctx, "usage cannot be read", "request", tracked(ctx).id, "error", err)
	}
	return problem(http.StatusServiceUnavailable, codeUsageUnavailable, "What was used cannot be read now.")
}

// noUsage stands for a control plane that counts nothing.
type noUsage struct{}

var errNoUsage = errors.New("httpapi: nothing is counted here")

func (noUsage) Months(context.Context, time.Time, ...int64) (map[int64]usage.Traffic, error) {
	return nil, errNoUsage
}
func (noUsage) Series(context.Context, usage.Subject, usage.Step, time.Time, time.Time) ([]usage.Bucket, error) {
	return nil, errNoUsage
}
func (noUsage) Live(context.Context, time.Time, usage.Kind, ...int64) (map[int64]int64, error) {
	return nil, errNoUsage
}
func (noUsage) Rates(context.Context, time.Time) (usage.Rates, error) {
	return usage.Rates{}, errNoUsage
}

func (a *api) usage() Usage {
	if a.config.Usage == nil {
		return noUsage{}
	}
	return a.config.Usage
}

// since adds up what a subject has used from a time on, whole days of it.
func (a *api) since(ctx context.Context, of usage.Subject, from time.Time) (sum usage.Traffic, err error) {
	buckets, err := a.usage().Series(ctx, of, usage.Day, from, a.now().Add(24*time.Hour))
	for _, b := range buckets {
		sum.Add(b.Traffic)
	}
	return sum, err
}

// lately gives what a subject has used today and in this month.
func (a *api) lately(ctx context.Context, of usage.Subject) (today, month TrafficSum, err error) {
	now := a.now()
	m, err := a.since(ctx, of, usage.MonthOf(now))
	if err != nil {
		return today, month, err
	}
	d, err := a.since(ctx, of, usage.Day.Begin(now))
	return sumOf(d), sumOf(m), err
}

// forwarders counts those that are there. While nobody can tell, those are counted
// that have reported lately, which a node does that has carried something.
func (a *api) forwarders(ctx context.Context, r usage.Rates) (n int) {
	if a.config.Nodes == nil {
		return r.Nodes
	}
	nodes, err := a.config.Nodes.Nodes(ctx)
	if err != nil {
		return r.Nodes
	}
	for _, node := range nodes {
		if slices.Contains(node.Roles, RoleForwarder) {
			n++
		}
	}
	return n
}

func (a *api) systemStats(ctx context.Context, _ *struct{}) (*struct{ Body SystemStats }, error) {
	counts, err := a.counted.get(ctx, a)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	rates, err := a.usage().Rates(ctx, a.now())
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	today, month, err := a.lately(ctx, usage.Subject{})
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	return &struct{ Body SystemStats }{SystemStats{Users: counts.users, Clients: counts.clients, Mappings: counts.mappings,
		Nodes: a.forwarders(ctx, rates), ConnectionsOpen: rates.Streams, Today: today, CurrentMonth: month}}, nil
}

func (a *api) realtimeStats(ctx context.Context, _ *struct{}) (*struct{ Body RealtimeStats }, error) {
	now := a.now()
	r, err := a.usage().Rates(ctx, now)
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	return &struct{ Body RealtimeStats }{RealtimeStats{At: now, Nodes: a.forwarders(ctx, r), ConnectionsOpen: r.Streams,
		ToTargetPerSecond: r.ToTarget, ToSourcePerSecond: r.ToSource, BytesPerSecond: r.ToTarget + r.ToSource}}, nil
}

// userStatsOf makes the rows of users.
func (a *api) userStatsOf(ctx context.Context, users ...projections.UserRow) ([]UserStats, error) {
	now := a.now()
	ids := make([]int64, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	months, err := a.usage().Months(ctx, now, ids...)
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	live, err := a.usage().Live(ctx, now, usage.OfAccount, ids...)
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	quotas, err := a.config.Reader.Quotas(ctx, ids...)
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	limits := map[int64]*int64{}
	for _, q := range quotas {
		limits[q.Account] = q.Limits.MonthlyTrafficLimit
	}
	stats := make([]UserStats, len(users))
	for i, u := range users {
		stats[i] = UserStats{UserID: u.ID, Username: u.Username, ConnectionsOpen: live[u.ID], MonthlyTrafficLimit: limits[u.ID],
			CurrentMonthTraffic: months[u.ID].Bytes(), CurrentMonth: sumOf(months[u.ID]), ResetsAt: usage.NextMonth(now)}
	}
	return stats, nil
}

// listUserStats lists all users to admins, and to others themselves.
func (a *api) listUserStats(ctx context.Context, in *statsPage) (*pageAnswer[UserStats], error) {
	var rows []projections.UserRow
	var next int64
	if who := identity(ctx); who.admin() {
		var err error
		if rows, next, err = a.config.Reader.Users(ctx, in.After, in.Limit); err != nil {
			return nil, a.unlisted(ctx, err)
		}
	} else if in.After < who.UserID {
		row, err := a.user(ctx, who.UserID, 0)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	stats, err := a.userStatsOf(ctx, rows...)
	if err != nil {
		return nil, err
	}
	return pageOf(stats, next, func(s UserStats) UserStats { return s }), nil
}

func (a *api) userStats(ctx context.Context, in *statsPath) (*struct{ Body UserStats }, error) {
	u, err := a.user(ctx, in.ID, 0)
	if err != nil {
		return nil, err
	}
	stats, err := a.userStatsOf(ctx, u)
	if err != nil {
		return nil, err
	}
	return &struct{ Body UserStats }{stats[0]}, nil
}

func (a *api) clientStats(ctx context.Context, in *statsPath) (*struct{ Body ClientStats }, error) {
	c, err := a.client(ctx, in.ID, 0)
	if err != nil {
		return nil, err
	}
	live, err := a.usage().Live(ctx, a.now(), usage.OfClient, in.ID)
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	today, month, err := a.lately(ctx, usage.Subject{Kind: usage.OfClient, ID: in.ID})
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	stats := ClientStats{ClientID: in.ID, ConnectionsOpen: live[in.ID], Today: today, CurrentMonth: month}
	if c.UserID != 0 {
		stats.UserID = &c.UserID
	}
	return &struct{ Body ClientStats }{stats}, nil
}

// subject gives what a chart is about: at most one thing, that who asks may see.
func (a *api) subject(ctx context.Context, in *trafficInput) (usage.Subject, error) {
	who := identity(ctx)
	theirs := func(owner int64, otherwise error) error {
		if who.admin() || owner == who.UserID {
			return nil
		}
		return otherwise
	}
	var subjects []usage.Subject
	var err error
	if in.UserID != 0 {
		subjects = append(subjects, usage.Subject{Kind: usage.OfAccount, ID: in.UserID})
		if _, err = a.user(ctx, in.UserID, 0); err == nil {
			err = theirs(in.UserID, notFound(domain.CodeUserNotFound, "There is no such user."))
		}
	}
	if in.ClientID != 0 && err == nil {
		subjects = append(subjects, usage.Subject{Kind: usage.OfClient, ID: in.ClientID})
		var c projections.ClientRow
		if c, err = a.client(ctx, in.ClientID, 0); err == nil {
			err = theirs(c.UserID, notFound(domain.CodeClientNotFound, "There is no such client."))
		}
	}
	if in.MappingID != 0 && err == nil {
		subjects = append(subjects, usage.Subject{Kind: usage.OfMapping, ID: in.MappingID})
		var m projections.MappingRow
		if m, err = a.mapping(ctx, in.MappingID, 0); err == nil {
			err = theirs(m.UserID, notFound(domain.CodeMappingNotFound, "There is no such mapping."))
		}
	}
	switch {
	case err != nil:
		return usage.Subject{}, err
	case len(subjects) > 1:
		return usage.Subject{}, invalid("query", "names more than one of user_id, client_id and mapping_id")
	case len(subjects) == 1:
		return subjects[0], nil
	case who.admin():
		return usage.Subject{}, nil
	}
	return usage.Subject{Kind: usage.OfAccount, ID: who.UserID}, nil
}

func (a *api) trafficStats(ctx context.Context, in *trafficInput) (*struct{ Body TrafficStats }, error) {
	of, err := a.subject(ctx, in)
	if err != nil {
		return nil, err
	}
	c := charts[in.Range]
	to := a.now().Truncate(c.width).Add(c.width)
	from := to.Add(-time.Duration(c.count) * c.width)
	buckets, err := a.usage().Series(ctx, of, c.of, from, to)
	if err != nil {
		return nil, a.uncounted(ctx, err)
	}
	stats := TrafficStats{Range: in.Range, From: from, To: to, StepSeconds: int64(c.width / time.Second), Buckets: make([]TrafficBucket, c.count)}
	sums, total := make([]usage.Traffic, c.count), usage.Traffic{}
	for _, b := range buckets {
		total.Add(b.Traffic)
		sums[b.At.Sub(from)/c.width].Add(b.Traffic)
	}
	for i, sum := range sums {
		stats.Buckets[i] = TrafficBucket{From: from.Add(time.Duration(i) * c.width), TrafficSum: sumOf(sum)}
	}
	stats.Total = sumOf(total)
	return &struct{ Body TrafficStats }{stats}, nil
}

// counts is how many there are of what the log knows.
type counts struct{ users, clients, mappings int64 }

// counted remembers counts, with the position they are of: what is there is what
// began and has not ended, so that only the records since then need be counted.
type counted struct {
	mu   sync.Mutex
	at   time.Time       // guarded by mu
	upTo domain.Position // guarded by mu
	last counts          // guarded by mu
}

// countedFor is how long counts are good.
const countedFor = 5 * time.Second

func (c *counted) get(ctx context.Context, a *api) (counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := a.now()
	if !c.at.IsZero() && !now.Before(c.at) && now.Sub(c.at) < countedFor {
		return c.last, nil
	}
	head, err := a.head(ctx)
	if err != nil {
		return counts{}, err
	}
	if head < c.upTo { // a log that was restored
		c.upTo, c.last = 0, counts{}
	}
	since, err := a.count(ctx, c.upTo, head)
	if err != nil {
		return counts{}, err
	}
	c.at, c.upTo = now, head
	c.last.users += since.users
	c.last.clients += since.clients
	c.last.mappings += since.mappings
	return c.last, nil
}

// count counts what began behind after and until head, less what ended.
func (a *api) count(ctx context.Context, after, head domain.Position) (c counts, err error) {
	if head == after {
		return c, nil
	}
	of := func(began, ended []domain.Event) int64 {
		var n [2]int64
		for i, events := range [][]domain.Event{began, ended} {
			names := make([]string, len(events))
			for j, e := range events {
				names[j] = e.EventName()
			}
			if err == nil {
				n[i], err = a.config.Search.Count(ctx, domain.Query{After: after, Before: head + 1, Names: names})
			}
		}
		return n[0] - n[1]
	}
	c.users = of([]domain.Event{domain.UserCreated{}}, []domain.Event{domain.UserDeleted{}})
	c.clients = of([]domain.Event{domain.ClientCreated{}, domain.ClientRegistered{}}, []domain.Event{domain.ClientDeleted{}, domain.ClientClaimed{}})
	c.mappings = of([]domain.Event{domain.MappingCreated{}}, []domain.Event{domain.MappingDeleted{}})
	return c, err
}
