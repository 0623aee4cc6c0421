package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tunnox-net/tunnox/test/apiclient"
	"github.com/tunnox-net/tunnox/test/programs"
)

// request is a command as a caller sends it, and once more with another body, if it has
// a body.
type request struct {
	method, path string
	body, other  any
}

// maker makes what a command needs, again for every request.
type maker struct {
	*testing.T
	*form
}

type fields = map[string]any

// commands gives a request for every operation that can be repeated under a key.
var commands = map[string]func(m maker) request{
	"create-user": func(m maker) request {
		return request{path: "/users", body: m.newUser(), other: m.newUser()}
	},
	"change-user": func(m maker) request {
		return request{path: path("/users/%d", m.user()), body: fields{"email": m.name() + "@example.org"}, other: fields{"email": "other@example.org"}}
	},
	"delete-user":  func(m maker) request { return request{path: path("/users/%d", m.user())} },
	"erase-user":   func(m maker) request { return request{path: path("/users/%d/erase", m.user())} },
	"disable-user": func(m maker) request { return request{path: path("/users/%d/disable", m.user())} },
	"enable-user": func(m maker) request {
		id := m.user()
		m.first.Do(m, "POST", base+path("/users/%d/disable", id), nil, nil)
		return request{path: path("/users/%d/enable", id)}
	},
	"set-user-role": func(m maker) request {
		return request{path: path("/users/%d/role", m.user()), body: fields{"role": "admin"}, other: fields{"role": "user"}}
	},
	"set-user-plan": func(m maker) request {
		return request{path: path("/users/%d/plan", m.user()), body: fields{"plan": "pro"}, other: fields{"plan": "free"}}
	},
	"set-quota": func(m maker) request {
		return request{path: path("/users/%d/quota", m.user()), body: fields{"max_clients": 5}, other: fields{"max_clients": nil}}
	},
	"post-quota": func(m maker) request {
		return request{path: path("/users/%d/quota", m.user()), body: fields{"max_clients": 6}, other: fields{}}
	},

	"create-client": func(m maker) request {
		user := m.user()
		return request{path: "/clients", body: fields{"user_id": user, "client_name": "a"}, other: fields{"user_id": user, "client_name": "b"}}
	},
	"claim-client": func(m maker) request {
		user, code := m.user(), m.claimCode(m.T)
		return request{path: "/clients/claim", body: fields{"claim_code": code, "user_id": user}, other: fields{"claim_code": code, "user_id": user, "client_name": "b"}}
	},
	"change-client": func(m maker) request {
		return request{path: path("/clients/%d", m.client(m.user())), body: fields{"client_name": "new"}, other: fields{"client_name": "newer"}}
	},
	"delete-client":  func(m maker) request { return request{path: path("/clients/%d", m.client(m.user()))} },
	"disable-client": func(m maker) request { return request{path: path("/clients/%d/disable", m.client(m.user()))} },
	"enable-client": func(m maker) request {
		id := m.client(m.user())
		m.first.Do(m, "POST", base+path("/clients/%d/disable", id), nil, nil)
		return request{path: path("/clients/%d/enable", id)}
	},
	"rotate-credential": func(m maker) request {
		return request{path: path("/clients/%d/rotate-credential", m.client(m.user()))}
	},

	"disconnect-client": func(m maker) request {
		return request{path: path("/clients/%d/disconnect", m.client(m.user()))}
	},
	// The node drains already; the request is in the log all the same.
	"drain-node":  func(m maker) request { return request{path: "/nodes/" + m.forwarder() + "/drain"} },
	"revoke-node": func(m maker) request { return request{path: path("/nodes/node-%d/revoke", 400+revoked.Add(1))} },

	"create-mapping": func(m maker) request {
		body := m.newMapping()
		return request{path: "/mappings", body: body, other: with(body, "local_port", 81)}
	},
	"change-mapping": func(m maker) request {
		return request{path: path("/mappings/%d", m.mapping()), body: fields{"name": "new"}, other: fields{"name": "newer"}}
	},
	"delete-mapping":  func(m maker) request { return request{path: path("/mappings/%d", m.mapping())} },
	"disable-mapping": func(m maker) request { return request{path: path("/mappings/%d/disable", m.mapping())} },
	"enable-mapping": func(m maker) request {
		id := m.mapping()
		m.first.Do(m, "POST", base+path("/mappings/%d/disable", id), nil, nil)
		return request{path: path("/mappings/%d/enable", id)}
	},

	"create-key": func(m maker) request {
		user := m.user()
		return request{path: "/keys", body: fields{"user_id": user, "name": "a"}, other: fields{"user_id": user, "name": "b"}}
	},
	"revoke-key": func(m maker) request {
		return request{path: path("/keys/%d", m.made("/keys", fields{"user_id": m.user()}, "key_id"))}
	},
	"create-share": func(m maker) request {
		body := m.newShare()
		return request{path: "/shares", body: body, other: with(body, "name", "b")}
	},
	"revoke-share": func(m maker) request {
		return request{path: path("/shares/%d", m.made("/shares", m.newShare(), "share_id"))}
	},
	"redeem-share": func(m maker) request {
		var share struct{ Code string }
		m.first.Do(m, "POST", base+"/shares", m.newShare(), &share)
		body := fields{"code": share.Code, "source_client_id": m.client(m.user()), "local_port": 80}
		return request{path: "/shares/redeem", body: body, other: with(body, "local_port", 81)}
	},

	"create-invite": func(m maker) request {
		body := fields{"user_id": m.user(), "name": "a"}
		return request{path: "/invites", body: body, other: with(body, "name", "b")}
	},
	"revoke-invite": func(m maker) request {
		return request{path: path("/invites/%d", m.made("/invites", fields{"user_id": m.user()}, "invite_id"))}
	},

	"create-domain": func(m maker) request {
		body := fields{"user_id": m.user(), "host": m.name() + ".example.org"}
		return request{path: "/domains", body: body, other: with(body, "host", "other.example.org")}
	},
	"verify-domain": func(m maker) request { return request{path: path("/domains/%d/verify", m.provable())} },
	"delete-domain": func(m maker) request { return request{path: path("/domains/%d", m.provable())} },

	"create-webhook": func(m maker) request {
		user := m.user()
		return request{path: "/webhooks", body: fields{"user_id": user, "url": "https://example.org/a"}, other: fields{"user_id": user, "url": "https://example.org/b"}}
	},
	"change-webhook": func(m maker) request {
		return request{path: path("/webhooks/%d", m.webhook()), body: fields{"events": []string{"user_*"}}, other: fields{"events": []string{"client_*"}}}
	},
	"delete-webhook":  func(m maker) request { return request{path: path("/webhooks/%d", m.webhook())} },
	"disable-webhook": func(m maker) request { return request{path: path("/webhooks/%d/disable", m.webhook())} },
	"enable-webhook": func(m maker) request {
		id := m.webhook()
		m.first.Do(m, "POST", base+path("/webhooks/%d/disable", id), nil, nil)
		return request{path: path("/webhooks/%d/enable", id)}
	},
	"rotate-webhook-secret": func(m maker) request {
		return request{path: path("/webhooks/%d/rotate-secret", m.webhook())}
	},

	"revert-event": func(m maker) request {
		changed := m.first.Do(m, "PUT", base+path("/users/%d", m.user()), fields{"username": m.name()}, nil)
		return request{path: "/events/" + changed.Header.Get("X-Position") + "/revert"}
	},
}

// withoutKey are the POSTs that accept no key, and the reasons.
var withoutKey = map[string]string{
	"login":        "a repeat is another login, which does nobody harm",
	"refresh":      "a refresh token is good once, which is what makes a stolen one noticed",
	"logout":       "what has ended has ended",
	"test-webhook": "a repeat is another test",
	"redeliver":    "a repeat sends it once more, under the same message id",
}

const base = "/api/v1"

func path(format string, ids ...any) string { return fmt.Sprintf(format, ids...) }

// name gives an unused name.
func (f *form) name() string { return fmt.Sprintf("n%d", f.names.Add(1)) }

// revoked counts the nodes that were revoked: nodes that never were, each once.
var revoked atomic.Int64

func (m maker) newUser() fields {
	name := m.name()
	return fields{"username": name, "email": name + "@example.org"}
}

// made makes something and gives its id.
func (m maker) made(path string, body fields, field string) int64 {
	m.Helper()
	var made fields
	m.first.Do(m, "POST", base+path, body, &made)
	return int64(made[field].(float64))
}

func (m maker) user() int64 { return m.made("/users", m.newUser(), "user_id") }

func (m maker) client(user int64) int64 {
	return m.made("/clients", fields{"user_id": user, "client_name": "c"}, "client_id")
}

// forwarder gives the id of a node to which agents connect.
func (m maker) forwarder() string {
	m.Helper()
	for _, n := range programs.All[struct {
		ID    string   `json:"node_id"`
		Roles []string `json:"roles"`
	}](m, m.first, base+"/nodes") {
		if slices.Contains(n.Roles, "forwarder") {
			return n.ID
		}
	}
	m.Fatal("there is no forwarder")
	return ""
}

func (m maker) newMapping() fields {
	user := m.user()
	client := m.client(user)
	return fields{"user_id": user, "source_client_id": client, "target_client_id": client, "protocol": "tcp",
		"local_port": 80, "target_host": "127.0.0.1", "target_port": 80}
}

func (m maker) mapping() int64 { return m.made("/mappings", m.newMapping(), "mapping_id") }

func (m maker) newShare() fields {
	user := m.user()
	return fields{"user_id": user, "target_client_id": m.client(user), "protocol": "tcp", "target_host": "127.0.0.1", "target_port": 80}
}

// provable makes a domain whose record is there.
func (m maker) provable() int64 {
	var d apiclient.Domain
	m.first.Do(m, "POST", base+"/domains", fields{"user_id": m.user(), "host": m.name() + ".example.org"}, &d)
	m.dns.SetText(d.ProofName, d.ProofValue)
	return d.DomainId
}

// webhook asks for an event that does not happen here, so that nothing is sent.
func (m maker) webhook() int64 {
	return m.made("/webhooks", fields{"user_id": m.user(), "url": "https://example.org/", "events": []string{"user_erased"}}, "webhook_id")
}

func with(body fields, name string, value any) fields {
	changed := fields{name: value}
	for n, v := range body {
		if n != name {
			changed[n] = v
		}
	}
	return changed
}

// eachCommand visits the operations that have all of these parameters, with a request
// that was not sent before.
func (f *form) eachCommand(t *testing.T, check func(t *testing.T, r request), parameters ...string) {
	for _, op := range f.doc.operations(parameters...) {
		ask, ok := commands[op.ID]
		if !ok {
			t.Errorf("%s is not among the commands; say here how to ask for it", op.ID)
			continue
		}
		t.Run(op.ID, func(t *testing.T) {
			r := ask(maker{t, f})
			r.method, r.path = op.method, base+r.path
			check(t, r)
		})
	}
}

// head gives the position of the last record.
func (f *form) head(t *testing.T) int64 {
	t.Helper()
	var page struct{ Items []struct{ Position int64 } }
	f.first.Do(t, "GET", base+"/audit?order=newest&limit=1", nil, &page)
	return page.Items[0].Position
}

// namesAfter gives the names of the events after a position, but of those that agents
// make by themselves at a moment of their own.
func (f *form) namesAfter(t *testing.T, position int64) []string {
	t.Helper()
	var names []string
	for _, e := range programs.All[struct{ Name string }](t, f.first, fmt.Sprintf("%s/events?limit=500&after=%d", base, position)) {
		if e.Name != "client_key_announced" {
			names = append(names, e.Name)
		}
	}
	return names
}

// dryRuns: with dry_run=true every command says what it would write, writes nothing,
// and later writes exactly that.
func dryRuns(t *testing.T, f *form) {
	f.eachCommand(t, func(t *testing.T, r request) {
		before := f.head(t)
		var plan struct {
			Command string
			Events  []struct{ Name string }
		}
		answer := f.first.Do(t, r.method, r.path+"?dry_run=true", r.body, &plan)
		is(t, "the content type", answer.Header.Get("Content-Type"), "application/vnd.tunnox.dry-run+json")
		is(t, "how many events a dry run writes", len(f.namesAfter(t, before)), 0)
		var planned []string
		for _, e := range plan.Events {
			planned = append(planned, e.Name)
		}
		if plan.Command == "" || len(planned) == 0 {
			t.Errorf("a dry run tells %+v", plan)
		}
		f.first.Do(t, r.method, r.path, r.body, nil)
		is(t, "what was written", f.namesAfter(t, before), planned)
	}, "dry_run")
}

// repeats: under a key every command has one effect and one answer, at either control
// plane; a key belongs to its caller and its request.
func repeats(t *testing.T, f *form) {
	for _, op := range f.doc.operations() {
		if _, told := withoutKey[op.ID]; op.method == http.MethodPost && op.has("Idempotency-Key") == told {
			t.Errorf("%s: Idempotency-Key is taken: %v, and there is a reason why not: %v", op.ID, !told, told)
		}
	}
	var second struct{ Key string }
	f.first.Do(t, "POST", base+"/keys", fields{"name": "second operator"}, &second)
	stranger := programs.NewAPI(t, f.first.URL, second.Key)
	f.eachCommand(t, func(t *testing.T, r request) {
		key := []string{"Idempotency-Key", f.name()}
		first := f.first.Do(t, r.method, r.path, r.body, nil, key...)
		head := f.head(t)
		again := f.other.Do(t, r.method, r.path, r.body, nil, key...)
		is(t, "how many events a repeat writes", len(f.namesAfter(t, head)), 0)
		is(t, "the status of a repeat", again.Status, first.Status)
		is(t, "the body of a repeat", shown(t, again), shown(t, first))
		for _, name := range []string{"X-Position", "ETag", "Location"} {
			is(t, name+" of a repeat", again.Header.Get(name), first.Header.Get(name))
		}
		is(t, "whether the first was one", first.Header.Get("Idempotency-Replayed"), "")
		is(t, "whether it was one", again.Header.Get("Idempotency-Replayed"), "true")
		var tried struct {
			Events []struct{}
			Ends   struct{ Clients, Mappings []int64 }
		}
		f.first.Do(t, r.method, r.path+"?dry_run=true", r.body, &tried, key...)
		if len(tried.Events) > 0 || tried.Ends.Clients == nil || tried.Ends.Mappings == nil {
			t.Errorf("a dry run of a repeat tells %+v", tried)
		}
		if r.other != nil {
			f.first.Refused(t, 422, "idempotency_mismatch", r.method, r.path, r.other, key...)
		}
		f.first.Refused(t, 422, "idempotency_mismatch", "POST", base+"/users", maker{t, f}.newUser(), key...)
		theirs, err := stranger.Call(r.method, r.path, r.body, key...)
		if err != nil || theirs.Status >= 500 || theirs.Header.Get("Idempotency-Replayed") != "" || theirs.Problem().Code == "idempotency_mismatch" {
			t.Errorf("somebody else's same key gave %d %s, %v", theirs.Status, theirs.Body, err)
		}
	}, "Idempotency-Key")
}

// atOnce: of many repeats at the same moment, at either control plane, one is the first
// and the others get its answer.
func atOnce(t *testing.T, f *form) {
	const callers = 8
	for range 5 {
		m := maker{t, f}
		body, key, head := fields{"user_id": m.user(), "client_name": "c"}, m.name(), f.head(t)
		answers := make(chan programs.Answer, callers)
		var running sync.WaitGroup
		for i := range callers {
			running.Go(func() {
				answer, err := []*programs.API{f.first, f.other}[i%2].Call("POST", base+"/clients", body, "Idempotency-Key", key)
				if err != nil {
					t.Error(err)
				}
				answers <- answer
			})
		}
		running.Wait()
		close(answers)
		firsts, bodies := 0, map[string]bool{}
		for answer := range answers {
			if answer.Header.Get("Idempotency-Replayed") == "" {
				firsts++
			}
			bodies[fmt.Sprint(answer.Status, shown(t, answer))] = true
		}
		if firsts != 1 || len(bodies) != 1 {
			t.Errorf("%d of %d were the first, with answers %v", firsts, callers, bodies)
		}
		is(t, "what was written", f.namesAfter(t, head), []string{"client_created", "quota_taken"})
	}
}

// shown gives a body without fields that are shown only once.
func shown(t *testing.T, answer programs.Answer) fields {
	t.Helper()
	if len(answer.Body) == 0 {
		return nil
	}
	var body fields
	answer.Read(t, &body)
	for _, once := range []string{"auth_code", "key", "code", "secret"} {
		delete(body, once)
	}
	if _, client := body["node_id"]; client { // the present place of a client is not part of the answer to a command
		for _, presence := range []string{"status", "node_id", "last_seen", "agent_version", "transport", "config_version"} {
			delete(body, presence)
		}
	}
	return body
}

// versions: a command that names an old version is refused, and every shown resource
// carries its version.
func versions(t *testing.T, f *form) {
	unversioned := []string{"get-node", "user-stats", "client-stats", "drain-node", "revoke-node"} // running nodes and counts have no version
	for _, op := range f.doc.operations("id") {
		one := op.method == http.MethodGet && !op.has("limit")
		if one && op.has("If-None-Match") == slices.Contains(unversioned, op.ID) {
			t.Errorf("%s: If-None-Match is taken: %v", op.ID, op.has("If-None-Match"))
		}
		if !one && op.method != http.MethodGet && op.has("Idempotency-Key") && op.has("If-Match") == slices.Contains(unversioned, op.ID) {
			t.Errorf("%s: If-Match is taken: %v", op.ID, op.has("If-Match"))
		}
	}
	f.eachCommand(t, func(t *testing.T, r request) {
		subject := f.subject(t, r.path)
		tag := f.first.Do(t, "GET", subject, nil, nil).Header.Get("ETag")
		for _, same := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			answer, err := f.first.Call("GET", subject, nil, "If-None-Match", same)
			if err != nil || answer.Status != http.StatusNotModified || len(answer.Body) != 0 || answer.Header.Get("ETag") != tag {
				t.Errorf("GET %s with If-None-Match %s: %d %q, %v", subject, same, answer.Status, answer.Body, err)
			}
		}
		head := f.head(t)
		f.first.Refused(t, 412, "version_conflict", r.method, r.path, r.body, "If-Match", `"4711"`)
		f.first.Refused(t, 412, "version_conflict", r.method, r.path+"?dry_run=true", r.body, "If-Match", `"4711"`)
		is(t, "how many events what was refused writes", len(f.namesAfter(t, head)), 0)
		done := f.first.Do(t, r.method, r.path, r.body, nil, "If-Match", tag)
		late, err := f.first.Call(r.method, r.path, r.body, "If-Match", tag)
		if gone := late.Status == http.StatusNotFound; err != nil || late.Status != http.StatusPreconditionFailed && !gone {
			t.Errorf("the version of before: %d %s, %v", late.Status, late.Body, err)
		} else if !gone && done.Header.Get("ETag") == "" {
			t.Error("no ETag")
		}
		if changed, err := f.first.Call("GET", subject, nil, "If-None-Match", tag); err != nil || changed.Status == http.StatusNotModified {
			t.Errorf("GET %s with If-None-Match of before: %d, %v", subject, changed.Status, err)
		}
	}, "If-Match")
}

// subject gives the path of a command's subject: the nearest resource that can be
// shown.
func (f *form) subject(t *testing.T, path string) string {
	t.Helper()
	for at := path; at != ""; at = at[:max(0, strings.LastIndexByte(at, '/'))] {
		r, err := http.NewRequest("GET", at, nil)
		if err != nil {
			t.Fatal(err)
		}
		handler, _ := f.doc.mux.Handler(r)
		if op, ok := handler.(*operation); ok && op.has("If-None-Match") {
			return at
		}
	}
	t.Fatalf("nothing that %s is about can be shown", path)
	return ""
}
