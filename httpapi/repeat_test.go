package httpapi_test

import (
	"fmt"
	"testing"
)

// A user who repeats a command that deleted something, or one that changed what
// somebody has deleted since, gets the first answer, as an admin does.
func TestAUsersRepeatIsTheFirstAnswerAfterADelete(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ann, bob := w.person("ann", "user"), w.person("bob", "user")
		a, b := w.client(ann.id, "a"), w.client(ann.id, "b")
		m := w.mapping(ann.id, a, b, 80)
		foreign := w.mapping(bob.id, w.client(bob.id, "a"), w.client(bob.id, "b"), 80)
		type call struct {
			method, path string
			body         any
		}
		calls := []call{
			{"PUT", path("mappings", m), fields{"name": "x"}},
			{"POST", path("mappings", m, "disable"), nil},
			{"POST", path("mappings", m, "enable"), nil},
			{"DELETE", path("mappings", m), nil},
			{"PUT", path("clients", b), fields{"client_name": "x"}},
			{"POST", path("clients", b, "disable"), nil},
			{"DELETE", path("clients", b), nil},
		}
		key := func(i int) []string { return []string{"Idempotency-Key", fmt.Sprint("key-", i)} }
		first := make([]*answer, len(calls))
		for i, c := range calls {
			first[i] = ann.do(c.method, c.path, c.body, key(i)...)
			if first[i].Status >= 300 {
				t.Fatalf("%s %s: %d %s", c.method, c.path, first[i].Status, first[i].Text)
			}
		}
		for i, c := range calls {
			again := ann.do(c.method, c.path, c.body, key(i)...)
			if again.Status != first[i].Status || again.Header.Get("Idempotency-Replayed") != "true" || again.position() != first[i].position() {
				t.Errorf("the repeat of %s %s: %d at %s, replayed %q, want %d at %s\n%s", c.method, c.path, again.Status, again.position(),
					again.Header.Get("Idempotency-Replayed"), first[i].Status, first[i].position(), again.Text)
			}
		}
		// A key that was used opens nothing, and tells nothing of what there is.
		for _, target := range []int64{foreign, 999_999} {
			ann.do("DELETE", path("mappings", target), nil, key(0)...).fault(422, "idempotency_mismatch")
			ann.do("DELETE", path("mappings", target), nil, "Idempotency-Key", "new").fault(404, "mapping_not_found")
			ann.do("GET", path("mappings", target), nil, key(0)...).fault(404, "mapping_not_found")
			ann.do("POST", path("webhooks", target, "test"), nil, key(0)...).fault(404, "webhook_not_found")
		}
		bob.do("DELETE", path("mappings", m), nil, key(3)...).fault(404, "mapping_not_found") // another's key is another key
		w.do("GET", path("mappings", foreign), nil).want(200)
	})
}
