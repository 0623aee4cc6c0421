package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestADryRunTellsNothingOfOthers: with a dry run a user does not find out which names and
// addresses belong to somebody. Admins, who see all users, are told.
func TestADryRunTellsNothingOfOthers(t *testing.T) {
	onEveryForm(t, func(t *testing.T, w *world) {
		ann := w.person("ann", "user")
		w.person("bob", "user")
		for _, field := range []string{"email", "username"} {
			free, taken := "nobody@example.org", "bob@example.org"
			if field == "username" {
				free, taken = "nobody", "bob"
			}
			ask := func(value string) *answer {
				return ann.do("PUT", path("users", ann.id)+"?dry_run=true", fields{field: value})
			}
			if a, b := ask(free).want(200), ask(taken).want(200); strings.ReplaceAll(b.Text, taken, free) != a.Text {
				t.Errorf("%s: a free one is answered %s, one that is taken %s", field, a.Text, b.Text)
			}
			w.do("PUT", path("users", ann.id)+"?dry_run=true", fields{field: taken}).fault(409, field+"_taken")
			ann.do("PUT", path("users", ann.id), fields{field: taken}).fault(409, field+"_taken")
		}
	})
}

// alike measures two requests by turns, and compares the answers and the shortest times,
// which say least of what else the machine does. It goes on for some rounds while they
// differ: what is left out differs in every round.
func alike(t *testing.T, what string, n int, there, not func() *answer) {
	t.Helper()
	var times [2][]time.Duration
	var texts [2]string
	ratio := 0.0
	for i := range rounds * n {
		for j, ask := range []func() *answer{there, not} {
			began := time.Now()
			a := ask()
			times[j] = append(times[j], time.Since(began))
			if a.Status != http.StatusUnauthorized {
				t.Fatalf("%s: %d %s", what, a.Status, a.Text)
			}
			a.Body["request_id"] = ""
			if texts[j] = a.text("detail") + a.text("code"); i > 0 && texts[0] != texts[1] {
				t.Fatalf("%s: %q and %q", what, texts[0], texts[1])
			}
		}
		if (i+1)%n > 0 {
			continue
		}
		a, b := slices.Min(times[0]), slices.Min(times[1])
		if ratio = float64(b) / float64(a); ratio > 0.5 && ratio < 2 {
			t.Logf("%s: one that is there %v, one that is not %v, ratio %.2f", what, a, b, ratio)
			return
		}
	}
	t.Errorf("%s: the ratio is %.2f", what, ratio)
}

const rounds = 8

// TestTheTimeTellsNothing: an unknown user name takes as long as a wrong password, and
// the id of a key that is not there as long as a wrong secret. The tests of package
// forwarder do the same for clients.
func TestTheTimeTellsNothing(t *testing.T) {
	for name, world := range map[string]func(testing.TB) *world{"sqlite": newStoredWorld, "postgres and redis": newClusterWorld} {
		t.Run(name, func(t *testing.T) {
			w := world(t)
			ann := w.person("ann", "user")
			n := 0
			login := func(name string) func() *answer {
				return func() *answer {
					n++ // from another address each time, so that no limit of attempts answers
					r := w.request("POST", path("auth", "login"), fields{"username": name, "password": "wrong horse"})
					r.RemoteAddr = "192.0." + formatID(int64(n/200)) + "." + formatID(int64(n%200)) + ":1"
					return w.send(r)
				}
			}
			// The limit of attempts counts by account, too.
			alike(t, "login", 4, login("ann"), login("nobody"))

			made := ann.do("POST", path("keys"), fields{"name": "k"}).want(201)
			id, secret, _ := strings.Cut(strings.TrimPrefix(made.text("key"), "tnk_"), "_")
			wrong := strings.Map(func(r rune) rune {
				if r == 'A' {
					return 'B'
				}
				return 'A'
			}, secret)
			key := func(id string) func() *answer {
				return func() *answer { return w.as("tnk_"+id+"_"+wrong, "GET", path("auth", "me"), nil) }
			}
			last := "1"
			if strings.HasSuffix(id, "1") {
				last = "2"
			}
			alike(t, "key", 200, key(id), key(id[:len(id)-1]+last))
		})
	}
}
