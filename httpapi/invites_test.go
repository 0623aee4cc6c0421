package httpapi_test

import (
	"strings"
	"testing"
)

// An invitation is made with a code that is shown once, counts what it made, and ends.
func TestInvites(t *testing.T) {
	w, _ := newNodes(t)
	ann, bob := w.person("ann", "user"), w.person("bob", "user")
	made := ann.do("POST", path("invites"), fields{"name": "laptops", "uses": 2, "expires_in": 3600}).want(201)
	id := made.id("invite_id")
	if code := made.text("code"); !strings.HasPrefix(code, "tnxj_") {
		t.Errorf("the code is %q", code)
	}
	shown := ann.do("GET", path("invites", id), nil).want(200)
	if _, again := shown.Body["code"]; again || shown.Body["uses"] != 0.0 || shown.Body["max_uses"] != 2.0 {
		t.Errorf("shown as %s", shown.Text)
	}
	bob.do("GET", path("invites", id), nil).want(404)
	bob.do("DELETE", path("invites", id), nil).want(404)
	bob.do("POST", path("invites"), fields{"user_id": ann.id}).want(404)
	// Without a word it is good for one machine and a week.
	plain := ann.do("POST", path("invites"), fields{}).want(201)
	if plain.Body["max_uses"] != 1.0 || plain.Body["expires_at"] == nil {
		t.Errorf("by default it is %s", plain.Text)
	}
	for _, wrong := range []fields{{"uses": 0}, {"uses": 1001}, {"expires_in": -1}, {"name": strings.Repeat("n", 101)}} {
		if a := ann.do("POST", path("invites"), wrong); a.Status != 422 {
			t.Errorf("%v: %d %s", wrong, a.Status, a.Text)
		}
	}
	if list := ann.do("GET", path("invites"), nil).want(200); strings.Count(list.Text, "invite_id") != 2 || strings.Contains(list.Text, "tnxj_") {
		t.Errorf("the list is %s", list.Text)
	}
	ann.do("DELETE", path("invites", id), nil).want(204)
	ann.do("GET", path("invites", id), nil).want(404)
}
