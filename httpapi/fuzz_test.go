package httpapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// FuzzRequests sends what nobody should send. Whatever it is, the answer is a
// success or a problem that says what is wrong, never our failure.
func FuzzRequests(f *testing.F) {
	w := newWorld(f, func(c *httpapi.Config) { c.WaitTimeout = time.Millisecond })
	user := w.user("ann")
	a, b := w.client(user, "a"), w.client(user, "b")
	w.mapping(user, a, b, 80)
	calls := []string{
		"POST /users", "PUT /users/100000001", "PUT /users/100000001/quota", "POST /users/100000001/quota", "GET /users",
		"POST /clients", "PUT /clients/600000000", "POST /clients/600000000/rotate-credential", "DELETE /clients/1",
		"POST /mappings", "PUT /mappings/1001", "POST /mappings/1001/disable", "POST /mappings/1001/enable", "GET /mappings/1001",
		"GET /events", "GET /users/100000001/history",
	}
	for i := range calls {
		for _, body := range []string{"", "{}", "null", "[]", `{"`, `"x"`, `1e999`, "{\"username\":\"\xff\"}", strings.Repeat("[", 5000),
			`{"username":"bob","email":"bob@example.org"}`, `{"max_clients":null,"max_mappings":-0}`, `{"max_clients":1e30}`,
			`{"user_id":100000001,"client_name":"c"}`, `{"local_port":9223372036854775808}`, `{"client_name":"\u0000"}`,
			`{"user_id":100000001,"source_client_id":600000000,"target_client_id":600000001,"protocol":"tcp","local_port":81,"target_host":"h","target_port":1}`} {
			f.Add(byte(i), body, "", "", "")
		}
		f.Add(byte(i), "{}", `"1"`, "key", "after=1&limit=2")
		f.Add(byte(i), "{}", `"99999999999999999999"`, "\x00", "limit=%zz&after")
	}
	f.Fuzz(func(t *testing.T, call byte, body, match, key, query string) {
		method, p, _ := strings.Cut(calls[int(call)%len(calls)], " ")
		w := &world{t: t, log: w.log, handler: w.handler}
		r := httptest.NewRequest(method, path()+p, strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header["Authorization"] = []string{"Bearer " + apiKey}
		r.Header["If-Match"], r.Header["If-None-Match"], r.Header["Min-Position"] = []string{match}, []string{match}, []string{query}
		r.Header["Idempotency-Key"], r.Header["X-Request-Id"] = []string{key}, []string{key}
		got := w.send(r)
		if got.Status >= 500 && got.Body["code"] != "read_model_behind" {
			t.Fatalf("%s with %q: %d %s", got.call, body, got.Status, got.Text)
		}
		if got.Status >= 400 && got.Header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s with %q: %d %q", got.call, body, got.Status, got.Header.Get("Content-Type"))
		}
	})
}
