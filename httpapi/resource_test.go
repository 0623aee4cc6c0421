package httpapi_test

import (
	"slices"
	"strings"
	"testing"
)

func TestUserLivesThroughTheAPI(t *testing.T) { onEach(t, userLivesThroughTheAPI) }

func userLivesThroughTheAPI(t *testing.T, w *world) {
	made := w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}).want(201)
	id := made.id("user_id")
	if id != 100000001 {
		t.Errorf("first user id %d", id)
	}
	made.has(fields{"username": "ann", "email": "ann@example.org", "status": "active", "has_password": true})
	if made.Header.Get("Location") != path("users", id) || made.Header.Get("ETag") != `"2"` || made.position() != "3" {
		t.Errorf("headers %v", made.Header)
	}
	quota := made.Body["quota"].(map[string]any)
	if v, ok := quota["max_clients"]; !ok || v != nil {
		t.Errorf("a new user's max_clients = %v, want null", v)
	}
	if strings.Contains(made.Text, "argon2") || strings.Contains(made.Text, "correct horse") {
		t.Errorf("the answer shows the password: %s", made.Text)
	}

	w.do("GET", path("users", id), nil, "Min-Position", made.position()).want(200).has(fields{"username": "ann", "status": "active"})
	changed := w.do("PUT", path("users", id), fields{"user_id": id, "username": "Ann2"}).want(200)
	changed.has(fields{"username": "Ann2", "email": "ann@example.org"})
	w.do("POST", path("users", id, "disable"), nil).want(200).has(fields{"status": "disabled"})
	again := w.do("POST", path("users", id, "disable"), nil).want(200)
	if again.Header.Get("ETag") != `"4"` {
		t.Errorf("asking for what is made version %s", again.Header.Get("ETag"))
	}
	w.do("POST", path("users", id, "enable"), nil).want(200).has(fields{"status": "active"})

	gone := w.do("DELETE", path("users", id), nil).want(204)
	if gone.Text != "" || gone.position() == "" {
		t.Errorf("DELETE: body %q, position %q", gone.Text, gone.position())
	}
	w.do("GET", path("users", id), nil, "Min-Position", gone.position()).fault(404, "user_not_found", "path.id")
	w.do("GET", path("users", id), nil).fault(404, "user_not_found", "path.id")
	w.do("PUT", path("users", id), fields{"username": "x"}).fault(404, "user_not_found", "path.id")
	w.do("DELETE", path("users", id), nil).fault(404, "user_not_found", "path.id")
	w.do("GET", path("users", id, "history"), nil).want(200)
	w.user("ann2") // its name is free again
}

func TestClientLivesThroughTheAPI(t *testing.T) { onEach(t, clientLivesThroughTheAPI) }

func clientLivesThroughTheAPI(t *testing.T, w *world) {
	user := w.user("ann")
	made := w.do("POST", path("clients"), fields{"user_id": user, "client_name": "office", "client_desc": "under the stairs"}).want(201)
	id := made.id("client_id")
	code, _ := made.Body["auth_code"].(string)
	if id != 600000000 || !strings.HasPrefix(code, "tnx_") || len(code) != 47 {
		t.Errorf("client %d with auth_code %q", id, code)
	}
	made.has(fields{"client_type": "managed", "user_id": user, "client_name": "office", "client_desc": "under the stairs",
		"status": "offline", "node_id": nil, "last_seen": nil})
	shown := w.do("GET", path("clients", id), nil, "Min-Position", made.position()).want(200)
	if _, ok := shown.Body["auth_code"]; ok || strings.Contains(shown.Text, code) {
		t.Errorf("auth_code is shown again: %s", shown.Text)
	}
	w.do("PUT", path("clients", id), fields{"client_id": id, "user_id": user, "client_name": "attic"}).want(200).
		has(fields{"client_name": "attic", "client_desc": "under the stairs"})
	w.do("PUT", path("clients", id), fields{"user_id": user + 1}).fault(422, "invalid", "body.user_id")
	w.do("PUT", path("clients", id), fields{"client_id": id + 1}).fault(422, "invalid", "body.client_id")
	rotated := w.do("POST", path("clients", id, "rotate-credential"), nil).want(200)
	if next, _ := rotated.Body["auth_code"].(string); next == code || !strings.HasPrefix(next, "tnx_") {
		t.Errorf("rotate gave %q after %q", next, code)
	}
	w.do("POST", path("clients", id, "disable"), nil).want(200).has(fields{"status": "disabled"})
	w.do("POST", path("clients", id, "enable"), nil).want(200).has(fields{"status": "offline"})
	w.do("DELETE", path("clients", id), nil).want(204)
	w.do("GET", path("clients", id), nil).fault(404, "client_not_found", "path.id")
}

func TestMappingLivesThroughTheAPI(t *testing.T) { onEach(t, mappingLivesThroughTheAPI) }

func mappingLivesThroughTheAPI(t *testing.T, w *world) {
	user := w.user("ann")
	a, b := w.client(user, "a"), w.client(user, "b")
	made := w.do("POST", path("mappings"), rule(user, a, b, 8080)).want(201)
	id := made.id("mapping_id")
	made.has(fields{"mapping_id": 1001, "user_id": user, "source_client_id": a, "target_client_id": b, "protocol": "tcp",
		"local_host": "127.0.0.1", "local_port": 8080, "target_host": "127.0.0.1", "target_port": 80, "status": "active", "name": ""})
	w.do("PUT", path("mappings", id), fields{"target_port": 81}).want(200).has(fields{"target_port": 81, "local_port": 8080})

	whole := w.do("GET", path("mappings", id), nil, "Min-Position", "1").want(200)
	back := fields{}
	for name, v := range whole.Body {
		if !slices.Contains([]string{"status", "created_at", "updated_at"}, name) {
			back[name] = v
		}
	}
	back["name"] = "intranet"
	w.do("PUT", path("mappings", id), back).want(200).has(fields{"name": "intranet"})
	w.do("PUT", path("mappings", id), fields{"user_id": user + 1, "source_client_id": b, "target_client_id": a, "local_port": 1}).
		fault(422, "invalid", "body.user_id", "body.source_client_id", "body.target_client_id")
	w.do("PUT", path("mappings", id), fields{"protocol": "http"}).fault(422, "invalid", "body.protocol")
	w.do("PUT", path("mappings", id), fields{"mapping_id": id + 1}).fault(422, "invalid", "body.mapping_id")

	w.do("POST", path("mappings", id, "disable"), nil).want(200).has(fields{"status": "disabled"})
	w.do("GET", path("users", user, "quota"), nil).want(200).has(fields{"clients": 2, "mappings": 1, "active_mappings": 0})
	w.do("POST", path("mappings", id, "enable"), nil).want(200).has(fields{"status": "active"})
	w.do("DELETE", path("mappings", id), nil).want(204)
	w.do("GET", path("mappings", id), nil).fault(404, "mapping_not_found", "path.id")
	w.do("GET", path("users", user, "quota"), nil).want(200).has(fields{"clients": 2, "mappings": 0, "active_mappings": 0})
}

func TestQuotaIsSetAndHolds(t *testing.T) { onEach(t, quotaIsSetAndHolds) }

func quotaIsSetAndHolds(t *testing.T, w *world) {
	user := w.user("ann")
	for _, method := range []string{"PUT", "POST"} {
		set := w.do(method, path("users", user, "quota"), fields{"max_clients": 2, "max_mappings": 1, "monthly_traffic_limit": 0}).want(200)
		set.has(fields{"user_id": user, "max_clients": 2, "max_mappings": 1, "max_active_mappings": nil, "monthly_traffic_limit": 0, "clients": 0})
	}
	a, b := w.client(user, "a"), w.client(user, "b")
	w.do("POST", path("clients"), fields{"user_id": user, "client_name": "c"}).fault(403, "quota_clients")
	w.mapping(user, a, b, 1)
	w.do("POST", path("mappings"), rule(user, a, b, 2)).fault(403, "quota_mappings")
	w.do("PUT", path("users", user, "quota"), fields{"max_mappings": nil, "max_active_mappings": 1}).want(200).
		has(fields{"max_clients": 2, "max_mappings": nil, "max_active_mappings": 1, "clients": 2, "mappings": 1, "active_mappings": 1})
	w.do("POST", path("mappings"), rule(user, a, b, 2)).fault(403, "quota_active_mappings")
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": -1, "max_mappings": 1.5, "max_active_mappings": "ten"}).
		fault(422, "invalid", "body.max_clients", "body.max_mappings", "body.max_active_mappings")
	w.do("PUT", path("users", user, "quota"), fields{"max_clients": 5, "clients": 0}).fault(422, "invalid", "body.clients")
	w.do("PUT", path("users", 200000001, "quota"), fields{"max_clients": 5}).fault(404, "user_not_found", "path.id")
	w.do("GET", path("users", 999, "quota"), nil).fault(404, "user_not_found", "path.id")

	shown := w.do("GET", path("users", user), nil).want(200).Body["quota"].(map[string]any)
	if shown["max_clients"] != 2.0 || shown["active_mappings"] != 1.0 {
		t.Errorf("the user's quota is shown as %v", shown)
	}
}

func TestListsArePages(t *testing.T) { onEach(t, listsArePages) }

func listsArePages(t *testing.T, w *world) {
	if empty := w.do("GET", path("users"), nil).want(200); !strings.Contains(empty.Text, `"items":[]`) || !strings.Contains(empty.Text, `"next":null`) {
		t.Errorf("empty list is %s", empty.Text)
	}
	ann, bob := w.user("ann"), w.user("bob")
	a, b := w.client(ann, "a"), w.client(ann, "b")
	c := w.client(bob, "c")
	m1, m2 := w.mapping(ann, a, b, 1), w.mapping(ann, a, b, 2)
	m3 := w.mapping(ann, b, b, 3)
	w.do("DELETE", path("mappings", m2), nil).want(204)

	for _, tt := range []struct {
		path, field string
		want        []int64
	}{
		{path("users"), "user_id", []int64{ann, bob}},
		{path("clients"), "client_id", []int64{a, b, c}},
		{path("mappings"), "mapping_id", []int64{m1, m3}},
		{path("users", ann, "clients"), "client_id", []int64{a, b}},
		{path("users", bob, "clients"), "client_id", []int64{c}},
		{path("users", ann, "mappings"), "mapping_id", []int64{m1, m3}},
		{path("users", bob, "mappings"), "mapping_id", []int64{}},
		{path("clients", a, "mappings"), "mapping_id", []int64{m1}},
		{path("clients", b, "mappings"), "mapping_id", []int64{m1, m3}},
		{path("clients", c, "mappings"), "mapping_id", []int64{}},
	} {
		if got := w.do("GET", tt.path, nil).want(200).items(tt.field); !slices.Equal(got, tt.want) {
			t.Errorf("%s lists %v, want %v", tt.path, got, tt.want)
		}
	}

	var all []int64
	for next := path("clients") + "?limit=2"; next != ""; {
		page := w.do("GET", next, nil).want(200)
		all = append(all, page.items("client_id")...)
		next = ""
		if page.Body["next"] != nil {
			next = path("clients") + "?limit=2&after=" + formatID(page.id("next"))
		}
	}
	if !slices.Equal(all, []int64{a, b, c}) {
		t.Errorf("pages hold %v", all)
	}

	w.do("GET", path("clients")+"?limit=0", nil).fault(422, "invalid", "query.limit")
	w.do("GET", path("clients")+"?limit=501", nil).fault(422, "invalid", "query.limit")
	w.do("GET", path("clients")+"?after=x&limit=y", nil).fault(422, "invalid", "query.after", "query.limit")
	w.do("GET", path("clients")+"?page=2", nil).fault(422, "invalid", "query.page")
	w.do("GET", path("users", 999, "clients"), nil).fault(404, "user_not_found", "path.id")
	w.do("GET", path("clients", 999, "mappings"), nil).fault(404, "client_not_found", "path.id")
}
