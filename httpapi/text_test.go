package httpapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// What no store can hold is refused by one check, whatever it stands in: databases
// refuse NUL and text that is not UTF-8, files do not, and both must answer alike.
func TestWhatNoStoreCanHoldIsRefusedAlike(t *testing.T) {
	onEveryForm(t, func(t *testing.T, w *world) {
		for _, bad := range []string{"%00", "a%00b", "%ff", "%c3%28"} {
			for query, place := range map[string]string{
				"/audit?actor=": "query.actor", "/audit?subject=": "query.subject", "/audit?type=": "query.type", "/events/stream?actor=": "query.actor",
				"/users?as_of=": "query.as_of", "/clients?status=": "query.status",
			} {
				w.do("GET", "/api/v1"+query+bad, nil).fault(422, "invalid", place)
			}
			w.do("GET", "/api/v1/nodes/"+bad, nil).fault(422, "invalid", "path")
			w.do("GET", "/api/v1/"+bad, nil).fault(422, "invalid", "path")
		}
		r := httptest.NewRequest("GET", "/api/v1/events/stream", nil)
		r.Header.Set("Authorization", "Bearer "+apiKey)
		for _, name := range []string{"Last-Event-ID", "If-None-Match", "Min-Position"} {
			r.Header[name] = []string{"\xff"}
			w.send(r).fault(422, "invalid", "header."+name)
			delete(r.Header, name)
		}
		r = httptest.NewRequest("POST", "/api/v1/users", strings.NewReader(`{"username":"ann","email":"ann@example.org"}`))
		r.Header.Set("Authorization", "Bearer "+apiKey)
		r.Header.Set("Content-Type", "application/json")
		r.Header["Idempotency-Key"] = []string{"\xc3\x28"}
		w.send(r).fault(422, "invalid", "header.Idempotency-Key")
		w.do("GET", "/api/v1/audit?actor=%zz", nil).fault(422, "invalid", "query")
		// What nobody stores is the caller's own affair.
		r = httptest.NewRequest("GET", "/api/v1/users", nil)
		r.Header.Set("Authorization", "Bearer "+apiKey)
		r.Header.Set("User-Agent", "caf\xe9")
		w.send(r).want(200)
	})
}

func TestASlashAtTheEndIsForgiven(t *testing.T) {
	w := newWorld(t)
	ann := w.user("ann")
	w.do("GET", "/api/v1/mappings/", nil).want(200)
	w.do("GET", path("users", ann)+"/", nil).want(200)
	w.do("GET", "/api/v1/nothing/", nil).fault(404, "route_not_found")
	w.do("GET", "/api/v1/mappings//", nil).fault(404, "route_not_found")
	one := w.do("DELETE", path("users", ann)+"/", nil, "Idempotency-Key", "k").want(204).position()
	if again := w.do("DELETE", path("users", ann), nil, "Idempotency-Key", "k").want(204); again.position() != one {
		t.Error("the same request with and without the slash is two")
	}
}

// A proxy that compresses makes every tag weak. The version in it is as good.
func TestAWeakTagGuardsAWrite(t *testing.T) {
	w := newWorld(t)
	ann := w.user("ann")
	tag := w.do("GET", path("users", ann), nil).want(200).Header.Get("ETag")
	w.do("PUT", path("users", ann), fields{"username": "anna"}, "If-Match", "W/"+tag).want(200)
	w.do("PUT", path("users", ann), fields{"username": "annabel"}, "If-Match", "W/"+tag).fault(412, "version_conflict", "header.If-Match")
	w.do("PUT", path("users", ann), fields{"username": "annabel"}, "If-Match", "W/x").fault(422, "invalid", "header.If-Match")
}
