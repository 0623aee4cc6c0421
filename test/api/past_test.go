package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// thePast: after each of many random commands one control plane shows a state. Later
// the other one shows the same state as of that moment, for every operation with as_of.
func thePast(t *testing.T, f *form) {
	p := populate(maker{t, f}, 2)
	ids := map[string]int64{"/users": p.user, "/clients": p.clients[0], "/mappings": p.mappings[0], "/keys": p.keys[0], "/shares": p.shares[0], "/webhooks": p.webhooks[0],
		"/invites": p.invites[0], "/domains": p.domains[0]}
	var asked []string
	for _, op := range f.doc.operations("as_of") {
		if op.method != http.MethodGet {
			t.Errorf("%s takes as_of, which a command cannot mean", op.ID)
			continue
		}
		at := strings.TrimPrefix(op.path, base)
		if op.has("user_id") {
			at += path("?limit=500&user_id=%d", p.user)
		} else if op.has("limit") && !op.has("id") {
			at += path("?limit=500&after=%d", p.user-1)
		}
		root := at[:1+strings.IndexAny(at[1:]+"/?", "/?")]
		asked = append(asked, strings.Replace(at, "{id}", fmt.Sprint(ids[root]), 1))
	}
	draw := rand.New(rand.NewPCG(4, 4))
	command := func(i int) programs.Answer {
		var answer programs.Answer
		for _, c := range []struct {
			method, path string
			body         any
		}{
			{"PUT", path("/users/%d", p.user), fields{"username": p.name()}},
			{"PUT", path("/users/%d/quota", p.user), fields{"max_keys": nil, "max_mappings": 20 + i}},
			{"POST", path("/clients/%d/%s", p.clients[0], []string{"enable", "disable"}[i%2]), nil},
			{"PUT", path("/mappings/%d", p.mappings[0]), fields{"name": p.name()}},
			{"POST", "/keys", fields{"user_id": p.user}},
			{"POST", "/shares", p.share(p.name())},
			{"PUT", path("/webhooks/%d", p.webhooks[0]), fields{"description": p.name()}},
			{"POST", "/mappings", with(p.newMapping(), "name", p.name())},
			{"DELETE", p.going[i%len(p.going)], nil},
		}[draw.IntN(9):] {
			var err error
			if answer, err = f.first.Call(c.method, base+c.path, c.body); err != nil || answer.Status >= 500 {
				t.Fatalf("%s %s: %d %s, %v", c.method, c.path, answer.Status, answer.Body, err)
			}
			if answer.Header.Get("X-Position") != "" {
				break
			}
		}
		return answer
	}
	type moment struct {
		position string
		at       time.Time
		shown    map[string]string
	}
	var moments []moment
	for i := 0; len(moments) < 25; i++ {
		position := command(i).Header.Get("X-Position")
		if position == "" {
			continue // the command changed nothing
		}
		then := moment{position: position, shown: map[string]string{}}
		for _, what := range asked {
			then.shown[what] = history(t, f.first, what, "Min-Position", position)
		}
		time.Sleep(time.Millisecond) // the next event gets another time
		then.at = time.Now()
		time.Sleep(time.Millisecond)
		moments = append(moments, then)
	}
	for _, i := range draw.Perm(len(moments)) {
		then := moments[i]
		asOf := then.position
		if i%3 == 0 {
			asOf = then.at.Format(time.RFC3339Nano)
		}
		for what, want := range then.shown {
			if got := history(t, f.other, asking(what, "as_of="+url.QueryEscape(asOf))); got != want {
				t.Fatalf("%s as of %s is\n%s\nand was\n%s", what, asOf, got, want)
			}
		}
	}
	t.Logf("%d ways to ask, each about %d moments", len(asked), len(moments))
}

// history removes fields that are not in the log: the places of clients, usage, and the
// last use of a key.
func history(t *testing.T, api *programs.API, what string, headers ...string) string {
	t.Helper()
	answer, err := api.Call("GET", base+what, nil, headers...)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status == http.StatusNotFound {
		return "not there"
	}
	var body any
	if answer.Read(t, &body); answer.Status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", what, answer.Status, answer.Body)
	}
	version, _, _ := strings.Cut(answer.Header.Get("ETag"), "-")
	strip(body)
	kept, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return version + string(kept)
}

func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, beside := range []string{"current_month_traffic", "resets_at", "last_used"} {
			delete(v, beside)
		}
		if v["client_type"] != nil && v["status"] != "disabled" {
			delete(v, "status")
		}
		for _, inner := range v {
			strip(inner)
		}
	case []any:
		for _, inner := range v {
			strip(inner)
		}
	}
}
