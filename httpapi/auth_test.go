package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/httpapi"
)

// operations reads every method and path from the document the API serves.
func operations(t *testing.T, w *world) (all [][2]string) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Security []map[string][]string `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(w.send(w.request("GET", "/openapi.json", nil)).want(200).Text), &doc); err != nil {
		t.Fatal(err)
	}
	for p, methods := range doc.Paths {
		for m := range methods {
			all = append(all, [2]string{strings.ToUpper(m), strings.ReplaceAll(p, "{id}", "1")})
		}
	}
	return all
}

func TestEveryRouteNeedsTheKey(t *testing.T) {
	w := newWorld(t)
	guarded := 0
	for _, op := range operations(t, w) {
		open := !strings.HasPrefix(op[1], "/api/v1/")
		if op[1] == "/api/v1/auth/login" || op[1] == "/api/v1/auth/refresh" {
			continue // a password or a refresh token is asked for instead
		}
		for name, authorization := range map[string]string{
			"none": "", "wrong": "Bearer " + apiKey + "x", "prefix": "Bearer " + apiKey[:len(apiKey)-1], "empty": "Bearer ", "basic": "Basic " + apiKey, "bare": apiKey,
		} {
			a := w.send(w.request(op[0], op[1], nil, "Authorization", authorization))
			if open {
				a.want(200)
				continue
			}
			guarded++
			a.fault(401, "unauthorized", "header.Authorization")
			if !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s with key %s: no challenge", a.call, name)
			}
		}
		if !open {
			if a := w.do(op[0], op[1], nil); a.Status == 401 || a.Status >= 500 {
				t.Errorf("%s with the key: %d", a.call, a.Status)
			}
		}
	}
	if guarded < 6*25 {
		t.Errorf("only %d guarded requests: the document lacks routes", guarded)
	}
	w.send(w.request("GET", "/api/v1/nothing", nil)).fault(401, "unauthorized")
	w.send(w.request("PATCH", "/api/v1/users", nil)).fault(401, "unauthorized")
	w.send(w.request("GET", path("users"), nil, "Authorization", "bearer "+apiKey)).want(200)
	if w.log.head() != 0 {
		t.Error("a request without a key wrote to the log")
	}
}

func TestWhatIsOpenIsOpen(t *testing.T) {
	w := newWorld(t)
	for _, p := range []string{"/health", "/ready", "/version", "/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/docs", "/docs/start.js", "/docs/swagger-ui.css"} {
		w.send(w.request("GET", p, nil)).want(200)
	}
	if a := w.send(w.request("GET", "/", nil)).want(302); a.Header.Get("Location") != "/docs" {
		t.Errorf("/ leads to %q", a.Header.Get("Location"))
	}
	w.send(w.request("GET", "/version", nil)).has(fields{"version": "0.0.1-test"})
}

func TestNoKeyIsNoAPI(t *testing.T) {
	if _, err := httpapi.New(httpapi.Config{}); err == nil || !strings.Contains(err.Error(), "API key") {
		t.Errorf("New without anything: %v", err)
	}
}

func TestActorIsInTheLog(t *testing.T) {
	w := newWorld(t)
	w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}, "X-Request-Id", "req-1").want(201)
	w.send(w.request("POST", path("clients"), fields{"user_id": 100000001, "client_name": "a"}, "Authorization", "Bearer another")).want(201)
	events := w.do("GET", path("events"), nil).want(200)
	if strings.Contains(events.Text, "argon2id") || !strings.Contains(events.Text, "[redacted]") {
		t.Errorf("the log shows the password's hash: %s", events.Text)
	}
	items := events.Body["items"].([]any)
	meta := func(i int) map[string]any { return items[i].(map[string]any)["meta"].(map[string]any) }
	if m := meta(0); m["actor"] != "key:admin" || m["request"] != "req-1" || m["allowed"] != "role:admin" || m["command"] != "create_user" || m["source"] != "192.0.2.1:1234" {
		t.Errorf("metadata is %v", m)
	}
	if m := meta(3); m["actor"] != "key:other" {
		t.Errorf("metadata is %v", m)
	}
}
