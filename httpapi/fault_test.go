package httpapi_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

func TestEveryFaultIsToldWithItsPlace(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.user("ann"), w.user("bob")
	a, b := w.client(ann, "a"), w.client(ann, "b")
	c := w.client(bob, "c")
	m := w.mapping(ann, a, b, 80)
	off := w.user("off")
	w.do("POST", path("users", off, "disable"), nil).want(200)
	long := strings.Repeat("x", 10<<10)
	with := func(change fields) fields {
		body := rule(ann, a, b, 81)
		for k, v := range change {
			if body[k] = v; v == nil {
				delete(body, k)
			}
		}
		return body
	}
	const users, clients, mappings = "/api/v1/users", "/api/v1/clients", "/api/v1/mappings"
	one := fmt.Sprint(mappings, "/", m)

	for _, tt := range []struct {
		name, method, path string
		body               any
		status             int
		code               string
		places             []string
	}{
		{"malformed", "POST", users, `{"username": `, 400, "malformed", []string{"body"}},
		{"not UTF-8", "POST", users, "{\"username\": \"\xff\", \"email\": \"z@x.org\"}", 400, "malformed", []string{"body"}},
		{"two documents", "POST", users, `{} {}`, 400, "malformed", []string{"body"}},
		{"no body", "POST", users, nil, 400, "malformed", []string{"body"}},
		{"null", "POST", users, `null`, 422, "invalid", []string{"body"}},
		{"array", "POST", users, `[]`, 422, "invalid", []string{"body"}},
		{"nothing in it", "POST", users, `{}`, 422, "invalid", []string{"body.username", "body.email"}},
		{"wrong types", "POST", users, `{"username": 1, "email": []}`, 422, "invalid", []string{"body.username", "body.email"}},
		{"null fields", "POST", users, `{"username": null, "email": null}`, 422, "invalid", []string{"body.username", "body.email"}},
		{"unknown field", "POST", users, fields{"username": "x", "email": "x@x.org", "admin": true}, 422, "invalid", []string{"body.admin"}},
		{"other case", "POST", users, fields{"Username": "x", "username": "x", "email": "x@x.org"}, 422, "invalid", []string{"body.Username"}},
		{"user name of 10 KB", "POST", users, fields{"username": long, "email": "x@x.org"}, 422, "invalid", []string{"body.username"}},
		{"user name with spaces", "POST", users, fields{"username": "a b", "email": "x"}, 422, "invalid", []string{"body.username", "body.email"}},
		{"short password", "POST", users, fields{"username": "x", "email": "x@x.org", "password": "1234567"}, 422, "invalid", []string{"body.password"}},
		{"long password", "POST", users, fields{"username": "x", "email": "x@x.org", "password": long}, 422, "invalid", []string{"body.password"}},
		{"username taken", "POST", users, fields{"username": "ANN", "email": "x@x.org"}, 409, "username_taken", []string{"body.username"}},
		{"email taken", "POST", users, fields{"username": "x", "email": "ANN@example.org"}, 409, "email_taken", []string{"body.email"}},
		{"rename to taken", "PUT", fmt.Sprint(users, "/", bob), fields{"username": "ann"}, 409, "username_taken", []string{"body.username"}},

		{"client of nobody", "POST", clients, fields{"user_id": 999, "client_name": "x"}, 404, "user_not_found", []string{"body.user_id"}},
		{"client of a disabled user", "POST", clients, fields{"user_id": off, "client_name": "x"}, 409, "user_disabled", nil},
		{"client without a name", "POST", clients, fields{"user_id": ann, "client_name": ""}, 422, "invalid", []string{"body.client_name"}},
		{"client name of 10 KB", "POST", clients, fields{"user_id": ann, "client_name": long, "client_desc": long}, 422, "invalid", []string{"body.client_name", "body.client_desc"}},
		{"client name forging a line", "POST", clients, fields{"user_id": ann, "client_name": "a\nb"}, 422, "invalid", []string{"body.client_name"}},
		{"client status", "PUT", fmt.Sprint(clients, "/", a), fields{"status": "online"}, 422, "invalid", []string{"body.status"}},

		{"port 0", "POST", mappings, with(fields{"local_port": 0, "target_port": 0}), 422, "invalid", []string{"body.local_port", "body.target_port"}},
		{"port 70000", "POST", mappings, with(fields{"local_port": 70000, "target_port": 70000}), 422, "invalid", []string{"body.local_port", "body.target_port"}},
		{"port as text", "POST", mappings, with(fields{"local_port": "80"}), 422, "invalid", []string{"body.local_port"}},
		{"port 1.5", "POST", mappings, with(fields{"local_port": 1.5}), 422, "invalid", []string{"body.local_port"}},
		{"an IPv4 address in IPv6", "POST", mappings, with(fields{"local_host": "::ffff:127.0.0.1"}), 422, "invalid", []string{"body.local_host"}},
		{"no ports", "POST", mappings, with(fields{"local_port": nil, "target_port": nil}), 422, "invalid", []string{"body.local_port", "body.target_port"}},
		{"no local port", "POST", mappings, with(fields{"local_port": nil}), 422, "invalid", []string{"body.local_port"}},
		{"a name to listen on", "POST", mappings, with(fields{"local_host": "localhost"}), 422, "invalid", []string{"body.local_host"}},
		{"target host of 10 KB", "POST", mappings, with(fields{"target_host": long}), 422, "invalid", []string{"body.target_host"}},
		{"target host with a slash", "POST", mappings, with(fields{"target_host": "a/b"}), 422, "invalid", []string{"body.target_host"}},
		{"mapping name of 10 KB", "POST", mappings, with(fields{"name": long}), 422, "invalid", []string{"body.name"}},
		{"unknown protocol", "POST", mappings, with(fields{"protocol": "icmp"}), 422, "invalid", []string{"body.protocol"}},
		{"socks5 with a service", "POST", mappings, with(fields{"protocol": "socks5"}), 422, "invalid", []string{"body.target_host"}},
		{"unknown user", "POST", mappings, with(fields{"user_id": 999}), 404, "user_not_found", []string{"body.user_id"}},
		{"unknown source", "POST", mappings, with(fields{"source_client_id": 999}), 404, "client_not_found", []string{"body.source_client_id"}},
		{"unknown target", "POST", mappings, with(fields{"target_client_id": 999}), 404, "client_not_found", []string{"body.target_client_id"}},
		{"foreign target", "POST", mappings, with(fields{"target_client_id": c}), 403, "client_not_owned", []string{"body.target_client_id"}},
		{"listener taken", "POST", mappings, with(fields{"local_port": 80}), 409, "listener_taken", []string{"body.local_port"}},
		{"id beyond int64", "POST", mappings, strings.Replace(fmt.Sprintf(`{"user_id":%d,"source_client_id":N,"target_client_id":1,"protocol":"tcp","local_port":1,"target_host":"h","target_port":1}`, ann), "N", "99999999999999999999", 1), 422, "invalid", []string{"body.source_client_id"}},
		{"limit beyond int64", "PUT", fmt.Sprint(users, "/", ann, "/quota"), `{"max_clients": 1e30}`, 422, "invalid", []string{"body.max_clients"}},
		{"nothing to change", "PUT", one, nil, 400, "malformed", []string{"body"}},
		{"change to port 70000", "PUT", one, fields{"target_port": 70000}, 422, "invalid", []string{"body.target_port"}},
		{"change to a wrong type", "PUT", one, `{"name": {}}`, 422, "invalid", []string{"body.name"}},

		{"no such mapping", "GET", mappings + "/999", nil, 404, "mapping_not_found", []string{"path.id"}},
		{"change no such mapping", "PUT", mappings + "/999", fields{"name": "x"}, 404, "mapping_not_found", []string{"path.id"}},
		{"delete no such mapping", "DELETE", mappings + "/999", nil, 404, "mapping_not_found", []string{"path.id"}},
		{"enable no such client", "POST", clients + "/999/enable", nil, 404, "client_not_found", []string{"path.id"}},
		{"rotate no such client", "POST", clients + "/999/rotate-credential", nil, 404, "client_not_found", []string{"path.id"}},
		{"a name for an id", "GET", mappings + "/intranet", nil, 422, "invalid", []string{"path.id"}},
		{"id 0", "GET", mappings + "/0", nil, 422, "invalid", []string{"path.id"}},
		{"id -1", "DELETE", mappings + "/-1", nil, 422, "invalid", []string{"path.id"}},
		{"id beyond int64 in the path", "GET", mappings + "/99999999999999999999", nil, 422, "invalid", []string{"path.id"}},
		{"history of nothing", "GET", mappings + "/999/history", nil, 404, "mapping_not_found", []string{"path.id"}},
		{"events after what", "GET", "/api/v1/events?after=-1&limit=1000", nil, 422, "invalid", []string{"query.after", "query.limit"}},

		{"no such route", "GET", "/api/v1/tunnels", nil, 404, "route_not_found", nil},
		{"no such page", "GET", "/favicon.ico", nil, 404, "route_not_found", nil},
		{"no such method", "PATCH", one, fields{}, 405, "method_not_allowed", nil},
		{"no such method on health", "DELETE", "/health", nil, 405, "method_not_allowed", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, log: w.log, handler: w.handler}
			before := w.log.head()
			got := w.do(tt.method, tt.path, tt.body, "Content-Type", "application/json").fault(tt.status, tt.code, tt.places...)
			if strings.Contains(got.Text, "xxxx") || strings.Contains(got.Text, "1234567\"") || strings.Contains(got.Text, "Go struct") {
				t.Errorf("the answer echoes what was sent: %s", got.Text)
			}
			if tt.status == 405 && got.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if w.log.head() != before {
				t.Error("a refused request wrote to the log")
			}
		})
	}
}

func TestBodiesAreBoundedAndJSON(t *testing.T) {
	w := newWorld(t)
	huge := `{"username":"` + strings.Repeat("x", 1<<20) + `"}`
	w.do("POST", path("users"), huge).fault(413, "body_too_large", "body")
	for _, contentType := range []string{"text/plain", "multipart/form-data", "application/xml", "application/json+zip"} {
		w.do("POST", path("users"), fields{"username": "x", "email": "x@x.org"}, "Content-Type", contentType).fault(415, "unsupported_media_type", "header.Content-Type")
	}
	w.do("POST", path("users"), fields{"username": "x", "email": "x@x.org"}, "Content-Type", "application/json; charset=utf-8").want(201)
	// What curl -d sends when nobody names a content type.
	w.do("POST", path("users"), fields{"username": "y", "email": "y@x.org"}, "Content-Type", "application/x-www-form-urlencoded").want(201)
	w.do("POST", path("users"), "username=z&email=z@x.org", "Content-Type", "application/x-www-form-urlencoded").fault(400, "malformed", "body")
	w.do("GET", path("users"), nil, "Accept", "text/html").want(200)
}

func TestUnreachableStoreIsSaid(t *testing.T) {
	w := newWorld(t)
	user := w.user("ann")
	w.do("GET", path("users"), nil).want(200) // caught up
	w.log.fail(&domain.Error{Code: domain.CodeStoreUnavailable, Message: "The log cannot be reached."})
	for _, a := range []*answer{
		w.do("POST", path("users"), fields{"username": "x", "email": "x@x.org"}),
		w.do("DELETE", path("users", user), nil),
		w.do("GET", path("events"), nil),
		w.do("GET", path("users", user, "history"), nil),
		w.do("GET", path("users", 999), nil),
		w.do("GET", path("users", user), nil), // a user's name and address are in the log only
	} {
		if a.fault(503, "store_unavailable"); a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", a.call)
		}
	}
	w.do("GET", path("clients"), nil).want(200) // what is in the read models can still be read
	w.do("GET", path("mappings"), nil).want(200)

	w.log.fail(errors.New("secret detail of the driver"))
	if a := w.do("DELETE", path("users", user), nil).fault(500, "internal"); strings.Contains(a.Text, "secret") {
		t.Errorf("an internal error is shown: %s", a.Text)
	}
	w.log.fail(nil)
	w.do("DELETE", path("users", user), nil).want(204)
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	if a := w.do("GET", path("users"), nil, "X-Request-Id", "my-id.1"); a.Header.Get("X-Request-Id") != "my-id.1" {
		t.Errorf("the caller's id became %q", a.Header.Get("X-Request-Id"))
	}
	for _, bad := range []string{"", "a b", "a\"b", strings.Repeat("x", 65), "ä"} {
		if got := w.do("GET", path("users"), nil, "X-Request-Id", bad).Header.Get("X-Request-Id"); got == bad || len(got) != 32 {
			t.Errorf("id %q became %q", bad, got)
		}
	}
	a := w.do("GET", path("nothing"), nil, "X-Request-Id", "seen").fault(404, "route_not_found")
	if a.Body["request_id"] != "seen" || a.Body["instance"] != path("nothing") {
		t.Errorf("problem is %s", a.Text)
	}
}
