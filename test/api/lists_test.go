package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// list is a list with pages: an operation and its parameters, the field that gives its
// order, and the ids that are in it all the time.
type list struct {
	op, path, field string
	stay            []int64
}

// population is an account with some resources of every kind that stay, and others in
// between that are deleted.
type population struct {
	maker
	user, client                            int64
	users, clients, mappings, keys, shares  []int64
	webhooks, invites, domains              []int64
	disabledUsers, disabledClients, stopped []int64
	going                                   []string // paths of the resources that are deleted
}

// populate makes n resources of every kind that stay; every second one is disabled.
func populate(m maker, n int) *population {
	p := &population{maker: m, user: m.user()}
	p.client = m.client(p.user)
	for i := range n {
		u, c, mp := m.user(), p.clientOf(i), p.mappingOf(i)
		p.users, p.clients, p.mappings = append(p.users, u), append(p.clients, c), append(p.mappings, mp)
		p.keys = append(p.keys, m.made("/keys", fields{"user_id": p.user, "name": "stays"}, "key_id"))
		p.shares = append(p.shares, m.made("/shares", p.share("stays"), "share_id"))
		p.invites = append(p.invites, m.made("/invites", p.invite("stays"), "invite_id"))
		p.domains = append(p.domains, m.made("/domains", p.domain(), "domain_id"))
		if i%2 == 1 {
			for _, what := range []string{path("/users/%d", u), path("/clients/%d", c), path("/mappings/%d", mp)} {
				m.first.Do(m, "POST", base+what+"/disable", nil, nil)
			}
			p.disabledUsers, p.disabledClients, p.stopped = append(p.disabledUsers, u), append(p.disabledClients, c), append(p.stopped, mp)
		}
		p.going = append(p.going, path("/users/%d", m.user()), path("/clients/%d", p.clientOf(i)), path("/mappings/%d", p.mappingOf(n+i)),
			path("/keys/%d", m.made("/keys", fields{"user_id": p.user, "name": "goes"}, "key_id")),
			path("/shares/%d", m.made("/shares", p.share("goes"), "share_id")),
			path("/invites/%d", m.made("/invites", p.invite("goes"), "invite_id")),
			path("/domains/%d", m.made("/domains", p.domain(), "domain_id")))
		if i < mostWebhooks/2 {
			p.webhooks = append(p.webhooks, p.hook())
			p.going = append(p.going, path("/webhooks/%d", p.hook()))
		}
	}
	return p
}

// mostWebhooks is how many webhooks a user may have.
const mostWebhooks = 10

func (p *population) hook() int64 {
	return p.made("/webhooks", fields{"user_id": p.user, "url": "https://example.org/", "events": []string{"user_erased"}}, "webhook_id")
}

func (p *population) clientOf(i int) int64 {
	return p.made("/clients", fields{"user_id": p.user, "client_name": fmt.Sprint("c", i)}, "client_id")
}

func (p *population) mappingOf(i int) int64 {
	return p.made("/mappings", fields{"user_id": p.user, "source_client_id": p.client, "target_client_id": p.client, "protocol": "tcp",
		"local_port": 1000 + i, "target_host": "127.0.0.1", "target_port": 80}, "mapping_id")
}

func (p *population) share(name string) fields {
	return fields{"user_id": p.user, "target_client_id": p.client, "name": name, "protocol": "tcp", "target_host": "127.0.0.1", "target_port": 80}
}

func (p *population) invite(name string) fields { return fields{"user_id": p.user, "name": name} }

func (p *population) domain() fields {
	return fields{"user_id": p.user, "host": p.name() + ".example.org"}
}

// lists gives every list, with its filters.
func (p *population) lists() []list {
	owner := path("user_id=%d", p.user)
	all := []list{
		{"list-users", "/users", "user_id", p.users},
		{"list-users", "/users?status=disabled", "user_id", p.disabledUsers},
		{"list-users", "/users?role=user", "user_id", p.users},
		{"list-user-stats", "/stats/users", "user_id", p.users},
		{"list-clients", "/clients", "client_id", p.clients},
		{"list-clients", "/clients?type=managed&status=disabled&" + owner, "client_id", p.disabledClients},
		{"list-clients-of-user", path("/users/%d/clients", p.user), "client_id", p.clients},
		{"list-mappings", "/mappings", "mapping_id", p.mappings},
		{"list-mappings", "/mappings?protocol=tcp&status=disabled&" + owner, "mapping_id", p.stopped},
		{"list-mappings-of-user", path("/users/%d/mappings", p.user), "mapping_id", p.mappings},
		{"list-mappings-of-client", path("/clients/%d/mappings", p.client), "mapping_id", p.mappings},
		{"list-keys", "/keys", "key_id", p.keys},
		{"list-keys", "/keys?" + owner, "key_id", p.keys},
		{"list-shares", "/shares?" + owner, "share_id", p.shares},
		{"list-invites", "/invites?" + owner, "invite_id", p.invites},
		{"list-domains", "/domains?" + owner, "domain_id", p.domains},
		{"list-webhooks", "/webhooks?" + owner, "webhook_id", p.webhooks},
		{"list-deliveries", path("/webhooks/%d/deliveries", p.webhooks[0]), "delivery_id", nil}, // none; the story of webhooks has some
	}
	// Nothing is removed from the log: present records stay.
	for _, l := range []list{
		{"list-events", "/events", "position", nil},
		{"audit", "/audit?" + path("owner=%d", p.user), "position", nil},
		{"audit", "/audit?type=mapping_created,mapping_disabled&" + path("owner=%d", p.user), "position", nil},
		{"user-history", path("/users/%d/history", p.user), "version", nil},
		{"client-history", path("/clients/%d/history", p.disabledClients[0]), "version", nil},
		{"mapping-history", path("/mappings/%d/history", p.stopped[0]), "version", nil},
	} {
		l.stay = p.pages(p.first, l, 500)
		all = append(all, l)
	}
	return all
}

// pages reads a list to its end and gives its ids, which must rise.
func (p *population) pages(api *programs.API, l list, limit int, headers ...string) []int64 {
	p.Helper()
	ids := []int64{}
	for after, pages := "", 0; ; pages++ {
		var page struct {
			Items []map[string]any
			Next  *int64
		}
		api.Do(p, "GET", base+asking(l.path, fmt.Sprintf("limit=%d%s", limit, after)), nil, &page, headers...)
		if len(page.Items) > limit {
			p.Errorf("%s: %d items on a page of %d", l.path, len(page.Items), limit)
		}
		for _, item := range page.Items {
			id := int64(item[l.field].(float64))
			if n := len(ids); n > 0 && id <= ids[n-1] {
				p.Fatalf("%s: %d comes behind %d", l.path, id, ids[n-1])
			}
			ids = append(ids, id)
		}
		if page.Next == nil {
			return ids
		}
		after = fmt.Sprint("&after=", *page.Next)
		if pages > 2000 {
			p.Fatalf("%s has no end", l.path)
		}
	}
}

// asking adds further parameters to a path.
func asking(path, query string) string {
	if strings.Contains(path, "?") {
		return path + "&" + query
	}
	return path + "?" + query
}

// churn deletes the resources that go, and makes and deletes more until the context
// ends.
func (p *population) churn(ctx context.Context) {
	name := p.name()
	must := func(method, path string, body any) programs.Answer {
		answer, err := p.first.Call(method, base+path, body)
		if err != nil || answer.Status/100 != 2 {
			p.Errorf("%s %s while lists are read: %d %s, %v", method, path, answer.Status, answer.Body, err)
		}
		return answer
	}
	for i := 0; ctx.Err() == nil; i++ {
		if i < len(p.going) {
			must("DELETE", p.going[i], nil)
		}
		made := must("POST", "/clients", fields{"user_id": p.user, "client_name": fmt.Sprint(name, i)})
		must("DELETE", strings.TrimPrefix(made.Header.Get("Location"), base), nil)
		made = must("POST", "/users", fields{"username": fmt.Sprint(name, i), "email": fmt.Sprint(name, i, "@example.org")})
		must("DELETE", strings.TrimPrefix(made.Header.Get("Location"), base), nil)
	}
}

// pagesAreWhole: a reader that pages through a changing list sees the rows in order, no
// row twice, and every row that was there all the time.
func pagesAreWhole(t *testing.T, f *form) {
	p := populate(maker{t, f}, 12)
	all := p.lists()
	for _, op := range f.doc.operations("limit", "after") {
		if op.method == http.MethodGet && !slices.ContainsFunc(all, func(l list) bool { return l.op == op.ID }) {
			t.Errorf("%s is not among the lists; add how to page through it", op.ID)
		}
	}
	seen := fmt.Sprint(f.head(t)) // the other control plane may be behind
	ctx, stop := context.WithCancel(t.Context())
	var churning sync.WaitGroup
	churning.Go(func() { p.churn(ctx) })
	defer churning.Wait()
	defer stop()
	for _, l := range all {
		var headers []string
		if f.doc.byID[l.op].has("Min-Position") {
			headers = []string{"Min-Position", seen}
		}
		got := p.pages(f.other, l, 5, headers...)
		for _, id := range l.stay {
			if _, found := slices.BinarySearch(got, id); !found {
				t.Errorf("%s: %d was there throughout and is on no page: %v", l.path, id, got)
			}
		}
	}
	stop()
	churning.Wait()
	newest := programs.All[struct{ Position int64 }](t, f.other, base+path("/audit?order=newest&limit=7&owner=%d", p.user))
	oldest := p.pages(f.other, list{"audit", path("/audit?owner=%d", p.user), "position", nil}, 500)
	for i, e := range newest {
		if e.Position != oldest[len(oldest)-1-i] {
			t.Fatalf("newest first, record %d is %d", i, e.Position)
		}
	}
	is(t, "how many are found newest first", len(newest), len(oldest))
}

// pagesHaveBounds: a page has one to 500 items, and a wrong parameter is refused with
// its place.
func pagesHaveBounds(t *testing.T, f *form) {
	p := populate(maker{t, f}, 2)
	for _, l := range p.lists() {
		for query, place := range map[string]string{"limit=0": "query.limit", "limit=501": "query.limit", "limit=x": "query.limit",
			"after=-1": "query.after", "page=2": "query.page"} {
			problem := f.first.Refused(t, 422, "invalid", "GET", base+asking(l.path, query), nil)
			if len(problem.Errors) != 1 || problem.Errors[0].Location != place {
				t.Errorf("%s: the faults are %+v, want %s", asking(l.path, query), problem.Errors, place)
			}
		}
		if whole := p.pages(f.first, l, 500); len(whole) < 100 { // and not everything that other tests made
			is(t, l.path+" in pages of one", p.pages(f.first, l, 1), whole)
		}
	}
}
