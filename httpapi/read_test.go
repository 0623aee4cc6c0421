package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
)

func TestReadsShowTheirMinPosition(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.WaitTimeout = 50 * time.Millisecond })
	user := w.user("ann")
	w.do("GET", path("users", user), nil, "Min-Position", fmt.Sprint(w.log.head())).want(200)
	w.log.hold()
	changed := w.do("PUT", path("users", user), fields{"username": "ann2"}).want(200).position()
	a := w.client(user, "a")
	at := fmt.Sprint(w.log.head())

	// The read models are held: single resources come from the log, lists are refused.
	w.do("GET", path("users", user), nil, "Min-Position", changed).want(200).has(fields{"username": "ann2"})
	w.do("GET", path("clients", a), nil, "Min-Position", at).want(200).has(fields{"client_name": "a"})
	w.do("GET", path("clients", a), nil).want(200) // what is missing is looked for in the log
	w.do("GET", path("users", user, "quota"), nil, "Min-Position", at).want(200).has(fields{"clients": 1})
	for _, list := range []string{path("users"), path("users", user, "clients"), path("clients", a, "mappings")} {
		if got := w.do("GET", list, nil, "Min-Position", at).fault(503, "read_model_behind", "header.Min-Position"); got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 without Retry-After", list)
		}
	}
	gone := w.do("DELETE", path("clients", a), nil).want(204).position()
	w.do("GET", path("clients", a), nil, "Min-Position", gone).fault(404, "client_not_found")
	w.do("GET", path("users", user), nil, "Min-Position", "100000").fault(503, "read_model_behind", "header.Min-Position")
	w.do("GET", path("users", user), nil, "Min-Position", "x").fault(422, "invalid", "header.Min-Position")

	w.log.release()
	for deadline := time.Now().Add(10 * time.Second); w.do("GET", path("users"), nil, "Min-Position", gone).Status != 200; {
		if time.Now().After(deadline) {
			t.Fatal("the read models never caught up")
		}
	}
	if got := w.do("GET", path("users", user, "clients"), nil, "Min-Position", gone).want(200).items("client_id"); len(got) != 0 {
		t.Errorf("clients %v after the last one was deleted", got)
	}
}

func TestWhoWritesHereReadsItHere(t *testing.T) { onEach(t, whoWritesHereReadsItHere) }

func whoWritesHereReadsItHere(t *testing.T, w *world) {
	for i := range 50 {
		name := fmt.Sprint("user", i)
		id := w.user(name)
		w.do("PUT", path("users", id), fields{"email": name + "@new.example.org"}).want(200)
		w.do("GET", path("users", id), nil).want(200).has(fields{"email": name + "@new.example.org"})
		if got := w.do("GET", path("users")+"?limit=500", nil).want(200).items("user_id"); len(got) != i+1 {
			t.Fatalf("%d users are listed after %d were made", len(got), i+1)
		}
	}
}

func TestIfNoneMatchIsNotModified(t *testing.T) {
	directory := &presences{}
	w := newWorld(t, func(c *httpapi.Config) { c.Presence = directory })
	user := w.user("ann")
	a := w.client(user, "a")
	m := w.mapping(user, a, a, 80)
	for _, p := range []string{path("users", user), path("users", user, "quota"), path("clients", a), path("mappings", m)} {
		tag := w.do("GET", p, nil).want(200).Header.Get("ETag")
		if tag == "" {
			t.Fatalf("%s: no ETag", p)
		}
		for _, header := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			if same := w.do("GET", p, nil, "If-None-Match", header).want(304); same.Text != "" || same.Header.Get("ETag") != tag {
				t.Errorf("%s: 304 with body %q, ETag %q", p, same.Text, same.Header.Get("ETag"))
			}
		}
		w.do("GET", p, nil, "If-None-Match", `"other"`).want(200)
	}

	tag := w.do("GET", path("clients", a), nil).Header.Get("ETag")
	directory.put(a, httpapi.ClientPresence{Online: true, Node: "node-001", LastSeen: time.Unix(1, 0), AgentVersion: "1", Transport: "wss", ConfigVersion: 7})
	w.do("GET", path("clients", a), nil, "If-None-Match", tag).want(200).has(fields{"status": "online", "node_id": "node-001", "config_version": 7, "agent_version": "1", "transport": "wss"})
	tag = w.do("GET", path("users", user), nil).Header.Get("ETag")
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": 9}).want(200)
	w.do("GET", path("users", user), nil, "If-None-Match", tag).want(200)
}

type presences struct {
	known map[int64]httpapi.ClientPresence
	err   error
}

func (p *presences) put(id int64, c httpapi.ClientPresence) {
	p.known = map[int64]httpapi.ClientPresence{id: c}
}

func (p *presences) Lookup(_ context.Context, ids ...int64) ([]httpapi.ClientPresence, error) {
	found := make([]httpapi.ClientPresence, len(ids))
	for i, id := range ids {
		found[i] = p.known[id]
	}
	return found, p.err
}

func TestPresenceIsJoinedIn(t *testing.T) {
	directory := &presences{}
	w := newWorld(t, func(c *httpapi.Config) { c.Presence = directory })
	user := w.user("ann")
	a := w.client(user, "a")
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	directory.put(a, httpapi.ClientPresence{Online: true, Node: "node-007", LastSeen: seen})
	w.do("GET", path("clients", a), nil).want(200).has(fields{"status": "online", "node_id": "node-007", "last_seen": "2026-01-02T03:04:05Z"})
	if list := w.do("GET", path("clients"), nil).want(200); !strings.Contains(list.Text, "node-007") {
		t.Errorf("the list says %s", list.Text)
	}
	directory.put(a, httpapi.ClientPresence{LastSeen: seen})
	w.do("GET", path("clients", a), nil).want(200).has(fields{"status": "offline", "node_id": nil, "last_seen": "2026-01-02T03:04:05Z"})
	w.do("POST", path("clients", a, "disable"), nil).want(200).has(fields{"status": "disabled"})
	w.do("POST", path("clients", a, "enable"), nil).want(200)
	directory.err = errors.New("directory is away")
	w.do("GET", path("clients", a), nil).want(200).has(fields{"status": "unknown", "node_id": nil})
}

func TestHistoryIsTheLog(t *testing.T) {
	w := newWorld(t)
	user := w.user("ann")
	a := w.client(user, "a")
	m := w.mapping(user, a, a, 80)
	w.do("PUT", path("mappings", m), fields{"target_port": 81}).want(200)
	w.do("DELETE", path("mappings", m), nil).want(204)

	history := w.do("GET", path("mappings", m, "history"), nil).want(200)
	var names []string
	for _, e := range history.Body["items"].([]any) {
		names = append(names, e.(map[string]any)["name"].(string))
	}
	if got := strings.Join(names, " "); got != "mapping_created mapping_changed mapping_deleted" || history.Body["next"] != nil {
		t.Errorf("history is %s, next %v", got, history.Body["next"])
	}
	page := w.do("GET", path("mappings", m, "history")+"?limit=2", nil).want(200)
	if len(page.items("version")) != 2 || page.id("next") != 2 {
		t.Errorf("first page is %s", page.Text)
	}
	if rest := w.do("GET", path("mappings", m, "history")+"?after=2", nil).want(200); len(rest.items("version")) != 1 || rest.Body["next"] != nil {
		t.Errorf("second page is %s", rest.Text)
	}
	if end := w.do("GET", path("mappings", m, "history")+"?after=3", nil).want(200); len(end.items("version")) != 0 {
		t.Errorf("behind the end is %s", end.Text)
	}
	w.do("GET", path("clients", a, "history"), nil).want(200)

	var all []int64
	for next := int64(0); ; {
		page := w.do("GET", fmt.Sprintf("%s?limit=3&after=%d", path("events"), next), nil).want(200)
		all = append(all, page.items("position")...)
		if page.Body["next"] == nil {
			break
		}
		next = page.id("next")
	}
	if len(all) != int(w.log.head()) {
		t.Errorf("pages hold %v, the log has %d", all, w.log.head())
	}
	for i, p := range all {
		if p != int64(i+1) {
			t.Fatalf("positions are %v", all)
		}
	}
}

func TestNoEventShowsASecret(t *testing.T) { onEach(t, noEventShowsASecret) }

func noEventShowsASecret(t *testing.T, w *world) {
	user := w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}).want(201).id("user_id")
	w.do("PUT", path("users", user), fields{"password": "battery staple"}).want(200)
	code := w.do("POST", path("clients"), fields{"user_id": user, "client_name": "a"}).want(201).Body["auth_code"].(string)
	for _, p := range []string{path("events"), path("users", user, "history"), path("clients", 600000000, "history"), path("users", user), path("users")} {
		text := w.do("GET", p, nil).want(200).Text
		for _, secret := range []string{"argon2id", "correct horse", "battery staple", code, strings.TrimPrefix(code, "tnx_")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %s: %s", p, secret, text)
			}
		}
	}
}

// unreachable is a reader whose read models are away.
type unreachable struct{ httpapi.Reader }

var errAway = fmt.Errorf("%w: connection refused", projections.ErrUnavailable)

func (unreachable) Wait(context.Context, domain.Position) error { return errAway }
func (unreachable) User(context.Context, int64) (row projections.UserRow, ok bool, err error) {
	return row, false, errAway
}
func (unreachable) Quota(context.Context, int64) (row projections.QuotaRow, ok bool, err error) {
	return row, false, errAway
}
func (unreachable) Users(context.Context, int64, int) ([]projections.UserRow, int64, error) {
	return nil, 0, errAway
}
func (unreachable) Clients(context.Context, projections.Index, int64, int) ([]projections.ClientRow, int64, error) {
	return nil, 0, errAway
}
func (unreachable) Mappings(context.Context, projections.Index, int64, int) ([]projections.MappingRow, int64, error) {
	return nil, 0, errAway
}

func TestWithoutReadModelsSingleResourcesAndWritesGoOn(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.Reader = unreachable{c.Reader} })
	user := w.user("ann")
	w.do("GET", path("users", user), nil).want(200).has(fields{"username": "ann"})
	w.do("PUT", path("users", user), fields{"username": "ann2"}).want(200).has(fields{"username": "ann2"})
	w.do("GET", path("users", user), nil, "Min-Position", "1").want(200).has(fields{"username": "ann2"})
	w.do("GET", path("users", 999), nil).fault(404, "user_not_found")
	for _, list := range []string{path("users"), path("clients"), path("mappings"), path("users", user, "clients"), path("users", user, "mappings")} {
		if a := w.do("GET", list, nil).fault(503, "read_model_unavailable"); a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 without Retry-After", list)
		}
	}
}
