package httpapi_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// shownThen is what the API showed at a moment.
type shownThen struct {
	position string
	at       time.Time
	answers  map[string]string // by path
}

// record asks for everything there is.
func (w *world) record(paths []string, header ...string) map[string]string {
	w.t.Helper()
	answers := map[string]string{}
	for _, p := range paths {
		answers[p] = w.then(p, "", header...)
	}
	return answers
}

// then gives what a path answers, as of a moment, without what is not history.
func (w *world) then(p, asOf string, header ...string) string {
	w.t.Helper()
	query := "?limit=500"
	if last := p[len(p)-1]; last >= '0' && last <= '9' || last == 'a' { // one thing, or a quota
		query = "?"
	}
	if asOf != "" {
		query += "&as_of=" + url.QueryEscape(asOf)
	}
	got := w.do("GET", p+query, nil, header...)
	if got.Status == 404 {
		return "404"
	}
	got.want(200)
	strip(got.Body)
	text, err := json.Marshal(got.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	version, _, _ := strings.Cut(got.Header.Get("ETag"), "-")
	return version + string(text)
}

// strip takes away where clients are connected and what was used, which is not in
// the log.
func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "current_month_traffic")
		delete(v, "resets_at")
		if v["client_id"] != nil && v["status"] != "disabled" {
			delete(v, "status")
		}
		for _, inner := range v {
			strip(inner)
		}
	case []any:
		for _, inner := range v {
			strip(inner)
		}
	}
}

// A clock that was an hour fast and was put right: what was asked for by time
// since must be there, though the log says a later time of it.
func TestWhatCameAfterAFastClockIsThere(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	w := newWorld(t, func(c *httpapi.Config) { c.Clock = clock })
	w.log.clock = clock
	stamp := func() string { return url.QueryEscape(now.Format(time.RFC3339Nano)) }
	ask := func(query string, want ...int64) {
		t.Helper()
		if got := w.do("GET", "/api/v1/users?"+query, nil).want(200).items("user_id"); !slices.Equal(got, want) {
			t.Errorf("%s shows %v, want %v", query, got, want)
		}
	}
	events := func(query string, want int) {
		t.Helper()
		if got := len(w.do("GET", "/api/v1/audit?type=user_created&"+query, nil).want(200).Body["items"].([]any)); got != want {
			t.Errorf("events with %s: %d, want %d", query, got, want)
		}
	}
	ann := w.user("ann")
	began := stamp()
	now = now.Add(time.Hour)
	bob := w.user("bob")
	now = now.Add(-time.Hour + time.Minute)
	carl := w.user("carl")
	between := stamp()
	now = now.Add(time.Minute)
	dora := w.user("dora")

	ask("as_of="+stamp(), ann, bob, carl, dora)
	ask("as_of="+between, ann, bob, carl)
	ask("as_of="+began, ann)
	recorded := w.do("GET", "/api/v1/audit?type=user_created", nil).want(200).Body["items"].([]any)[3].(map[string]any)["recorded"].(string)
	ask("as_of="+url.QueryEscape(recorded), ann, bob, carl, dora) // a time that the log gave can be asked for
	events("to="+url.QueryEscape(now.Add(time.Second).Format(time.RFC3339Nano)), 4)
	events("from="+url.QueryEscape(now.Format(time.RFC3339Nano)), 1)
	w.do("GET", "/api/v1/users?as_of="+url.QueryEscape(now.Add(2*time.Hour).Format(time.RFC3339)), nil).fault(422, "invalid", "query.as_of")

	now = now.Add(2 * time.Hour) // the clock has passed what the log says
	ask("as_of="+stamp(), ann, bob, carl, dora)
}

// TestThePastIsAnsweredAsItWas records what the API shows after each of 200
// random commands, and asks for all of it again at the end.
func TestThePastIsAnsweredAsItWas(t *testing.T) {
	onEveryForm(t, func(t *testing.T, w *world) {
		draw := rand.New(rand.NewPCG(7, 7))
		var users, clients, mappings []int64
		pick := func(ids []int64) int64 {
			if len(ids) == 0 {
				return 1
			}
			return ids[draw.IntN(len(ids))]
		}
		step := func(i int) *answer {
			user := pick(users)
			switch draw.IntN(10) {
			case 0:
				return w.do("POST", "/api/v1/users", fields{"username": fmt.Sprint("user", i), "email": fmt.Sprint(i, "@example.org")})
			case 1, 2:
				return w.do("POST", "/api/v1/clients", fields{"user_id": user, "client_name": fmt.Sprint("c", i)})
			case 3, 4:
				return w.do("POST", "/api/v1/mappings", rule(user, pick(clients), pick(clients), 1000+i))
			case 5:
				return w.do("PUT", path("mappings", pick(mappings)), fields{"name": fmt.Sprint("m", i)})
			case 6:
				return w.do("POST", path("clients", pick(clients), []string{"enable", "disable"}[draw.IntN(2)]), nil)
			case 7:
				return w.do("PUT", path("users", user, "quota"), fields{"max_mappings": draw.IntN(9)})
			case 8:
				return w.do("PUT", path("users", user), fields{"username": fmt.Sprint("renamed", i)})
			default:
				return w.do("DELETE", path([]any{"mappings", "clients", "mappings"}[draw.IntN(3)], pick(append(mappings, clients...))), nil)
			}
		}
		users = append(users, w.user("ann"), w.user("bob"))
		for _, u := range users {
			clients = append(clients, w.client(u, "a"), w.client(u, "b"))
		}
		var moments []shownThen
		for i := 0; len(moments) < 200; i++ {
			done := step(i)
			if done.Status >= 500 {
				t.Fatal(done.Text)
			}
			if done.position() == "" {
				continue
			}
			for field, ids := range map[string]*[]int64{"user_id": &users, "client_id": &clients, "mapping_id": &mappings} {
				if done.Status == 201 && done.Header.Get("Location") == path(field[:len(field)-3]+"s", fmt.Sprintf("%.0f", done.Body[field])) {
					*ids = append(*ids, done.id(field))
				}
			}
			paths := []string{"/api/v1/users", "/api/v1/clients", "/api/v1/mappings", path("users", pick(users)), path("users", users[0], "quota"),
				path("clients", pick(clients)), path("users", users[0], "clients"), path("mappings", pick(mappings))}
			now := shownThen{position: done.position(), answers: w.record(paths, "Min-Position", done.position())}
			time.Sleep(time.Microsecond) // what comes next is recorded at another time
			now.at = time.Now()
			time.Sleep(time.Microsecond)
			moments = append(moments, now)
		}
		for _, i := range draw.Perm(len(moments)) {
			then := moments[i]
			asOf := then.position
			if i%3 == 0 {
				asOf = then.at.Format(time.RFC3339Nano)
			}
			for p, want := range then.answers {
				if got := w.then(p, asOf); got != want {
					t.Fatalf("%s as of %s is\n%s\nand was\n%s", p, asOf, got, want)
				}
			}
		}
		if got := w.do("GET", "/api/v1/users?as_of=3", nil).want(200); got.position() != "3" {
			t.Errorf("X-Position %s, want 3", got.position())
		}
	})
}

func TestMomentsThatAreNone(t *testing.T) {
	w := newWorld(t)
	id := w.user("ann")
	for _, asOf := range []string{"3", "-1", "99999999999999999999", "yesterday", "2999-01-01T00:00:00Z"} {
		w.do("GET", "/api/v1/users?as_of="+asOf, nil).fault(422, "invalid", "query.as_of")
	}
	w.do("GET", path("users", id)+"?as_of=0", nil).fault(404, "user_not_found")
	w.do("GET", path("users", id)+"?as_of=1", nil).want(200)
	if got := w.do("GET", "/api/v1/users?as_of=0", nil).want(200); len(got.items("user_id")) != 0 {
		t.Error("there are users before the beginning")
	}
	w.send(w.request("GET", "/api/v1/users?as_of=x", nil)).fault(401, "unauthorized")
	w.do("GET", "/api/v1/events?as_of=1", nil).fault(422, "invalid", "query.as_of")
}

// TestThePastBeforeTheAsker: who asks about a moment before they were there is shown
// nothing, by every list.
func TestThePastBeforeTheAsker(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		w.person("eve", "user")
		ann := w.person("ann", "user")
		for _, list := range []string{"users", "clients", "mappings", "keys", "shares", "invites", "webhooks"} {
			for _, asOf := range []string{"0", "1"} {
				got := ann.do("GET", path(list)+"?as_of="+asOf, nil).want(200)
				if items := got.Body["items"].([]any); len(items) != 0 {
					t.Errorf("%s as of %s: %s", list, asOf, got.Text)
				}
			}
		}
	})
}
