package httpapi_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

func TestIfMatchGuardsAWrite(t *testing.T) { onEach(t, ifMatchGuardsAWrite) }

func ifMatchGuardsAWrite(t *testing.T, w *world) {
	user := w.user("ann")
	first := w.do("GET", path("users", user), nil).want(200).Header.Get("ETag")
	changed := w.do("PUT", path("users", user), fields{"email": "new@example.org"}, "If-Match", first).want(200)
	w.do("PUT", path("users", user), fields{"email": "other@example.org"}, "If-Match", first).fault(412, "version_conflict", "header.If-Match")
	w.do("PUT", path("users", user), fields{"email": "other@example.org"}, "If-Match", `"99"`).fault(412, "version_conflict", "header.If-Match")
	w.do("POST", path("users", user, "disable"), nil, "If-Match", changed.Header.Get("ETag")).want(200)
	w.do("POST", path("users", user, "enable"), nil, "If-Match", "*").want(200)
	w.do("DELETE", path("users", user), nil, "If-Match", first).fault(412, "version_conflict", "header.If-Match")
	for _, bad := range []string{"1", `W/1`, `"x"`, `"1", "2"`, `"-1"`, `"`} {
		w.do("PUT", path("users", user), fields{}, "If-Match", bad).fault(422, "invalid", "header.If-Match")
	}
	w.do("DELETE", path("users", 999), nil, "If-Match", first).fault(404, "user_not_found")

	quota := w.do("GET", path("users", user, "quota"), nil).want(200).Header.Get("ETag")
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": 1}, "If-Match", quota).want(200)
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": 2}, "If-Match", quota).fault(412, "version_conflict", "header.If-Match")

	a := w.client(user, "a")
	tag := w.do("GET", path("clients", a), nil).want(200).Header.Get("ETag")
	w.do("PUT", path("clients", a), fields{"client_name": "b"}, "If-Match", tag).want(200)
	w.do("PUT", path("clients", a), fields{"client_name": "c"}, "If-Match", tag).fault(412, "version_conflict", "header.If-Match")
}

func TestIdempotencyKeyMakesARepeatHarmless(t *testing.T) {
	onEach(t, idempotencyKeyMakesARepeatHarmless)
}

func idempotencyKeyMakesARepeatHarmless(t *testing.T, w *world) {
	body := fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}
	first := w.do("POST", path("users"), body, "Idempotency-Key", "k1").want(201)
	again := w.do("POST", path("users"), body, "Idempotency-Key", "k1").want(201)
	if again.Text != first.Text || again.Header.Get("Location") != first.Header.Get("Location") ||
		again.position() != first.position() || again.Header.Get("ETag") != first.Header.Get("ETag") {
		t.Errorf("a repeat gave %s %v, first %s %v", again.Text, again.Header, first.Text, first.Header)
	}
	if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed: first %q, again %q", first.Header.Get("Idempotency-Replayed"), again.Header.Get("Idempotency-Replayed"))
	}
	user := first.id("user_id")
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": 1}).want(200)
	w.do("PUT", path("users", user), fields{"username": "ann2"}).want(200)
	if later := w.do("POST", path("users"), body, "Idempotency-Key", "k1").want(201); later.Text != first.Text {
		t.Errorf("a later repeat gave %s, first %s", later.Text, first.Text)
	}

	client := fields{"user_id": user, "client_name": "a"}
	made := w.do("POST", path("clients"), client, "Idempotency-Key", "k2").want(201)
	repeated := w.do("POST", path("clients"), client, "Idempotency-Key", "k2").want(201)
	if _, ok := repeated.Body["auth_code"]; ok || repeated.id("client_id") != made.id("client_id") {
		t.Errorf("a repeat gave %s", repeated.Text)
	}
	rotate := path("clients", made.id("client_id"), "rotate-credential")
	w.do("POST", rotate, nil, "Idempotency-Key", "k3").want(200)
	if r := w.do("POST", rotate, nil, "Idempotency-Key", "k3").want(200); r.Body["auth_code"] != nil {
		t.Errorf("a repeated rotation gave a code that does not work: %s", r.Text)
	}
	gone := path("clients", made.id("client_id"))
	w.do("DELETE", gone, nil, "Idempotency-Key", "k4").want(204)
	w.do("DELETE", gone, nil, "Idempotency-Key", "k4").want(204)
	w.do("DELETE", gone, nil, "Idempotency-Key", "k5").fault(404, "client_not_found")

	const reused = "idempotency_mismatch"
	place := "header.Idempotency-Key"
	w.do("POST", path("users"), fields{"username": "bob", "email": "bob@example.org"}, "Idempotency-Key", "k1").fault(422, reused, place)
	body["password"] = "another password"
	w.do("POST", path("users"), body, "Idempotency-Key", "k1").fault(422, reused, place)
	w.do("POST", path("clients"), client, "Idempotency-Key", "k1").fault(422, reused, place)
	w.do("PUT", path("users", user), fields{"email": "x@x.org"}, "Idempotency-Key", "k6").want(200)
	w.do("PUT", path("users", user), fields{"email": "x@x.org"}, "Idempotency-Key", "k6", "If-Match", `"1"`).fault(422, reused, place)
	other := w.request("POST", path("users"), fields{"username": "bob", "email": "bob@example.org"}, "Authorization", "Bearer another", "Idempotency-Key", "k1")
	w.send(other).want(201) // keys of another caller are other keys

	for _, bad := range []string{strings.Repeat("k", 256), "a b", "ä"} {
		w.do("POST", path("users"), fields{"username": "x", "email": "x@x.org"}, "Idempotency-Key", bad).fault(422, "invalid", place)
	}
}

func TestRepeatedQuotaIsTheRequestAndNotItsMeaning(t *testing.T) {
	onEach(t, repeatedQuotaIsTheRequestAndNotItsMeaning)
}

func repeatedQuotaIsTheRequestAndNotItsMeaning(t *testing.T, w *world) {
	user := w.user("ann")
	w.do("PUT", path("users", user, "quota"), `{"max_clients": 1}`, "Idempotency-Key", "k").want(200)
	w.do("PUT", path("users", user, "quota"), `{ "max_clients":1 }`, "Idempotency-Key", "k").want(200)
	w.do("PUT", path("users", user, "quota"), `{"max_clients": 1, "max_mappings": null}`, "Idempotency-Key", "k").fault(422, "idempotency_mismatch")
}

func TestFiftyCreatesAgainstALimitOfTen(t *testing.T) { onEach(t, fiftyCreatesAgainstALimitOfTen) }

func fiftyCreatesAgainstALimitOfTen(t *testing.T, w *world) {
	user := w.user("ann")
	a, b := w.client(user, "a"), w.client(user, "b")
	w.do("PUT", path("users", user, "quota"), fields{"max_mappings": 10}).want(200)
	var mu sync.Mutex
	count := map[int]int{}
	var callers sync.WaitGroup
	for i := range 50 {
		callers.Go(func() {
			got := w.do("POST", path("mappings"), rule(user, a, b, 1000+i))
			mu.Lock()
			defer mu.Unlock()
			count[got.Status]++
		})
	}
	callers.Wait()
	if count[201] != 10 || count[403] != 40 {
		t.Errorf("50 creates gave %v", count)
	}
	if got := len(w.do("GET", path("mappings"), nil).want(200).items("mapping_id")); got != 10 {
		t.Errorf("%d mappings are left", got)
	}
}

func TestTakenIDIsDrawnAgain(t *testing.T) {
	w := newWorld(t)
	user := w.user("ann")
	w.log.mu.Lock()
	w.log.next[domain.SequenceUser] = 0 // the sequence was restored to before ann
	w.log.mu.Unlock()
	if bob := w.user("bob"); bob != user+1 {
		t.Errorf("bob is %d", bob)
	}
}
