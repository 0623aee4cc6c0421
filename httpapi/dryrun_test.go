package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/usage"
)

// connected says that some clients are connected.
type connected []int64

func (c connected) Lookup(_ context.Context, ids ...int64) ([]httpapi.ClientPresence, error) {
	present := make([]httpapi.ClientPresence, len(ids))
	for i, id := range ids {
		present[i].Online = slices.Contains(c, id)
	}
	return present, nil
}

// tenEach says that every mapping has ten open streams.
type tenEach struct{ noneUsed }

func (tenEach) Live(_ context.Context, _ time.Time, _ usage.Kind, ids ...int64) (map[int64]int64, error) {
	open := map[int64]int64{}
	for _, id := range ids {
		open[id] = 10
	}
	return open, nil
}

// names gives the names of a list of events.
func (a *answer) names() (names []string) {
	for _, e := range a.Body["events"].([]any) {
		names = append(names, e.(map[string]any)["name"].(string))
	}
	return names
}

func TestDryRunWritesNothingAndTellsWhatWouldEnd(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) {
		c.Presence = connected{600000000}
		c.Usage = tenEach{}
	})
	ann := w.user("ann")
	a, b := w.client(ann, "a"), w.client(ann, "b")
	w.mapping(ann, a, b, 80)
	m := w.mapping(ann, b, b, 81)
	head := w.log.head()
	for _, tt := range []struct {
		method, path string
		body         any
		names        []string
		ends         string
	}{
		{"POST", "/api/v1/users", fields{"username": "bob", "email": "bob@example.org", "password": "correct horse"},
			[]string{"user_created", "user_password_set", "quota_set"}, "clients [] mappings [] sessions 0 streams 0"},
		{"DELETE", path("clients", a), nil, []string{"mapping_deleted", "quota_returned", "client_deleted", "quota_returned"}, "clients [6e+08] mappings [1001] sessions 1 streams 10"},
		{"POST", path("users", ann, "disable"), nil, []string{"user_disabled"}, "clients [6e+08] mappings [1001 1002] sessions 1 streams 20"},
		{"POST", path("users", ann, "enable"), nil, nil, "clients [] mappings [] sessions 0 streams 0"},
		{"PUT", path("mappings", m), fields{"name": "new"}, []string{"mapping_changed"}, "clients [] mappings [] sessions 0 streams 0"},
		{"POST", path("clients", b, "rotate-credential"), nil, []string{"client_credential_rotated"}, "clients [] mappings [1001 1002] sessions 0 streams 20"},
		{"PUT", path("users", ann, "quota"), fields{"max_clients": 9}, []string{"quota_set"}, "clients [] mappings [] sessions 0 streams 0"},
	} {
		got := w.do(tt.method, tt.path+"?dry_run=true", tt.body, "Idempotency-Key", "k").want(200)
		if got.Header.Get("Content-Type") != "application/vnd.tunnox.dry-run+json" {
			t.Errorf("%s: content type %s", got.call, got.Header.Get("Content-Type"))
		}
		if names := got.names(); !slices.Equal(names, tt.names) {
			t.Errorf("%s: events %v, want %v", got.call, names, tt.names)
		}
		ends := got.Body["ends"].(map[string]any)
		if text := fmt.Sprintf("clients %v mappings %v sessions %v streams %v", ends["clients"], ends["mappings"], ends["sessions"], ends["streams"]); text != tt.ends {
			t.Errorf("%s: ends %s, want %s", got.call, text, tt.ends)
		}
	}
	w.do("POST", "/api/v1/users?dry_run=true", fields{"username": "ann", "email": "other@example.org"}).fault(409, "username_taken", "body.username")
	w.do("DELETE", path("mappings", 4711)+"?dry_run=true", nil).fault(404, "mapping_not_found")
	w.do("PUT", path("mappings", m)+"?dry_run=true", fields{"name": "x"}, "If-Match", `"7"`).fault(412, "version_conflict")
	if now := w.log.head(); now != head {
		t.Errorf("%d records were written", now-head)
	}
}

// TestEveryCommandHasADryRun: what has an idempotency key can be tried out.
func TestEveryCommandHasADryRun(t *testing.T) {
	doc := newWorld(t).do("GET", "/openapi.json", nil).want(200)
	for p, methods := range doc.Body["paths"].(map[string]any) {
		for method, op := range methods.(map[string]any) {
			var has []string
			parameters, _ := op.(map[string]any)["parameters"].([]any)
			for _, parameter := range parameters {
				has = append(has, parameter.(map[string]any)["name"].(string))
			}
			if slices.Contains(has, "Idempotency-Key") != slices.Contains(has, "dry_run") {
				t.Errorf("%s %s has only one of Idempotency-Key and dry_run", method, p)
			}
			ok, _ := op.(map[string]any)["responses"].(map[string]any)["200"].(map[string]any)
			content, _ := ok["content"].(map[string]any)
			if _, documented := content["application/vnd.tunnox.dry-run+json"]; documented != slices.Contains(has, "dry_run") {
				t.Errorf("%s %s: the answer of a dry run is not documented", method, p)
			}
		}
	}
}

func TestRevertAsksForWhatWasBefore(t *testing.T) {
	onEveryForm(t, func(t *testing.T, w *world) {
		ann := w.user("ann")
		c := w.client(ann, "c")
		m := w.mapping(ann, c, c, 80)
		// last gives the position of the last event of a name.
		last := func(name string) string {
			t.Helper()
			return formatID(w.do("GET", "/api/v1/audit?order=newest&limit=1&type="+name, nil).want(200).items("position")[0])
		}
		revert := func(position string, header ...string) *answer {
			return w.do("POST", "/api/v1/events/"+position+"/revert", nil, header...)
		}
		w.do("PUT", path("mappings", m), fields{"name": "new", "target_port": 99}).want(200)
		changed := last("mapping_changed")
		if got := w.do("POST", "/api/v1/events/"+changed+"/revert?dry_run=true", nil).want(200); !slices.Equal(got.names(), []string{"mapping_changed"}) {
			t.Errorf("dry run: %s", got.Text)
		}
		got := revert(changed, "Idempotency-Key", "once").want(200).has(fields{"command": "change_mapping", "reverts": changed})
		event := got.Body["events"].([]any)[0].(map[string]any)
		if cause := event["meta"].(map[string]any)["cause"]; cause != "event:"+changed {
			t.Errorf("cause %v", cause)
		}
		w.do("GET", path("mappings", m), nil, "Min-Position", got.position()).want(200).has(fields{"name": "", "target_port": 80})
		if again := revert(changed, "Idempotency-Key", "once").want(200); again.position() != got.position() || again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("a repeat: %s %v", again.Text, again.Header)
		}
		if tried := w.do("POST", "/api/v1/events/"+changed+"/revert?dry_run=true", nil, "Idempotency-Key", "once").want(200); len(tried.names()) > 0 {
			t.Errorf("a dry run of a repeat: %s", tried.Text)
		}
		revert(changed).fault(409, "moved_on")
		revert(changed, "Idempotency-Key", "another").fault(409, "moved_on")
		w.do("POST", path("mappings", m, "disable"), nil).want(200)
		revert(last("quota_returned")).fault(409, "not_revertible")
		revert(last("mapping_disabled")).want(200).has(fields{"command": "enable_mapping"})
		w.do("PUT", path("users", ann), fields{"username": "anna"}).want(200)
		revert(last("user_changed")).want(200)
		w.do("PUT", path("users", ann, "quota"), fields{"max_mappings": 3}).want(200)
		first := last("quota_set")
		w.do("PUT", path("users", ann, "quota"), fields{"max_mappings": 4}).want(200)
		revert(first).fault(409, "moved_on")
		got = revert(last("quota_set")).want(200)
		w.do("GET", path("users", ann, "quota"), nil, "Min-Position", got.position()).want(200).has(fields{"max_mappings": 3})
		revert(last("user_created")).fault(409, "moved_on")
		revert(last("client_created")).fault(409, "moved_on")
		revert(last("mapping_created")).want(200).has(fields{"command": "delete_mapping"})
		revert(last("mapping_deleted")).fault(409, "not_revertible")
		revert(last("client_created")).want(200)
		revert(last("user_created")).want(200)
		revert("4711").fault(404, "event_not_found", "path.position")
	})
}
