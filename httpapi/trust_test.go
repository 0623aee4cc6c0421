package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// keyWith makes an API key with scopes, as somebody with a token.
func (w *world) keyWith(token string, user int64, scopes ...string) string {
	w.t.Helper()
	return w.as(token, "POST", path("keys"), fields{"user_id": user, "name": "k", "scopes": scopes}).want(201).text("key")
}

// A password gives all that its user may do. So only who may do all of that can
// set one, whatever their role: a key that may change users must not become an admin.
func TestAPasswordIsSetByWhoMayDoAsMuch(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		root, ann := w.person("root", "admin"), w.person("ann", "user")
		bare := w.user("bare") // has no password
		set := fields{"password": "another horse"}
		operators := w.keyWith(apiKey, 0, "read", "users:write")
		own := w.keyWith(apiKey, bare, "read", "users:write")
		for name, call := range map[string]*answer{
			"an operator's key, of an admin":          w.as(operators, "PUT", path("users", root.id), set),
			"an operator's key, of a user":            w.as(operators, "PUT", path("users", ann.id), set),
			"a user's key, of one without a password": w.as(own, "PUT", path("users", bare), set),
		} {
			if call.Status != 403 || call.Body["code"] != "scope_denied" {
				t.Errorf("%s: %d %s", name, call.Status, call.Text)
			}
		}
		w.as(operators, "PUT", path("users", ann.id), fields{"email": "new@example.org"}).want(200) // what it is for
		for name, password := range map[string]string{"root": "another horse", "ann": "another horse", "bare": "another horse"} {
			w.send(w.request("POST", path("auth", "login"), fields{"username": name, "password": password})).want(401)
		}
		w.do("PUT", path("users", bare), set).want(200)
		root.do("PUT", path("users", ann.id), set).want(200)
		ann = &person{w: w, access: w.send(w.request("POST", path("auth", "login"), fields{"username": "ann", "password": "another horse"})).want(200).text("access_token"), id: ann.id}
		ann.do("PUT", path("users", ann.id), fields{"password": "a third horse", "current_password": "another horse"}).want(200)
	})
}

// A live stream shows what its reader may see now, not when it began.
func TestALiveStreamFollowsItsReadersRights(t *testing.T) {
	w := newWorld(t)
	base, _ := w.served()
	other := w.user("other")
	open := func(token string) *live {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		t.Cleanup(cancel)
		r, err := http.NewRequestWithContext(ctx, "GET", base+"/api/v1/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return followRequest(t, r)
	}
	for name, change := range map[string]func(*person, string){
		"demoted":  func(p *person, _ string) { w.do("PUT", path("users", p.id, "role"), fields{"role": "user"}).want(200) },
		"disabled": func(p *person, _ string) { w.do("POST", path("users", p.id, "disable"), nil).want(200) },
		"deleted":  func(p *person, _ string) { w.do("DELETE", path("users", p.id), nil).want(204) },
	} {
		t.Run(name, func(t *testing.T) {
			p := w.person(name, "admin")
			key := w.keyWith(p.access, p.id, "read", "admin")
			byLogin, byKey := open(p.access), open(key)
			byLogin.beat()
			byKey.beat()
			seen := w.client(other, "before-"+name)
			for _, l := range []*live{byLogin, byKey} {
				for position, event := l.next(); event != "client_created"; position, event = l.next() {
					if position == 0 {
						t.Fatalf("client %d is not seen", seen)
					}
				}
			}
			change(p, key)
			time.Sleep(300 * time.Millisecond) // for which a token is believed without looking
			w.client(other, "after-"+name)
			for _, l := range []*live{byLogin, byKey} {
				for position, event := l.next(); position != 0; position, event = l.next() {
					if event == "client_created" {
						t.Errorf("a stream of somebody who was %s shows what belongs to others", name)
						break
					}
				}
			}
		})
	}
}

// A stream whose key has expired ends in about a second, though nothing happens
// that it would show.
func TestALiveStreamEndsWithItsKey(t *testing.T) {
	var later atomic.Int64
	w := newWorld(t, func(c *httpapi.Config) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	base, _ := w.served()
	ann := w.person("ann", "user")
	key := w.as(ann.access, "POST", path("keys"), fields{"name": "k", "scopes": []string{"read"},
		"expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}).want(201).text("key")
	r, err := http.NewRequest("GET", base+"/api/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	l := followRequest(t, r)
	if !l.beat() {
		t.Fatal("no beginning")
	}
	later.Store(int64(2 * time.Hour))
	began := time.Now()
	for l.beat() {
	}
	if took := time.Since(began); took > 10*time.Second { // the heartbeat is 15 s
		t.Errorf("it ended after %v", took)
	}
}

// Streams and requests count by user: more keys are not more of them, and users
// cannot take what admins need to look at what users do.
func TestLimitsCountUsersAndNotKeys(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.RateLimit, c.RateBurst = 0.001, 60 })
	base, _ := w.served()
	ann := w.person("ann", "user")
	var keys []string
	for range 3 {
		keys = append(keys, w.keyWith(apiKey, ann.id, "read"))
	}
	opened := 0
	for i := range 24 {
		r, err := http.NewRequest("GET", base+"/api/v1/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+keys[i%3])
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		resp, err := http.DefaultClient.Do(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode == 200 {
			opened++
		}
	}
	if opened != 16 {
		t.Errorf("a user with three keys opened %d streams, want 16", opened)
	}
	answered := 0
	for i := range 60 {
		if w.as(keys[i%3], "GET", path("users"), nil).Status == 200 {
			answered++
		}
	}
	if want := 60 - 24; answered != want {
		t.Errorf("after 24 requests of a burst of 60, %d of 60 with three keys were answered, want %d", answered, want)
	}
	w.do("GET", path("users"), nil).want(200)
}

func TestAdminsHaveStreamsLeft(t *testing.T) {
	w := newWorld(t)
	base, _ := w.served()
	open := func(token string) int {
		t.Helper()
		r, err := http.NewRequest("GET", base+"/api/v1/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		resp, err := http.DefaultClient.Do(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp.StatusCode
	}
	opened := 0
	for i := range 17 { // 17 users, 16 each
		key := w.keyWith(apiKey, w.user(fmt.Sprint("user", i)), "read")
		for range 16 {
			if open(key) == 200 {
				opened++
			}
		}
	}
	if opened != 240 {
		t.Errorf("users have %d streams, want 240", opened)
	}
	if status := open(apiKey); status != 200 {
		t.Errorf("the operator's stream: %d", status)
	}
}
