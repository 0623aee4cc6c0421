package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/webhook"
)

// deliveries are kept in memory, and nobody sends them.
type deliveries struct {
	mu   sync.Mutex
	list []webhook.Delivery // guarded by mu
}

func newDeliveries() *deliveries { return &deliveries{} }

func (*deliveries) Secret(id, generation int64) string {
	return fmt.Sprintf("whsec_%d-%d", id, generation)
}

func (d *deliveries) List(_ context.Context, of, before int64, limit int) ([]webhook.Delivery, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []webhook.Delivery
	for _, x := range slices.Backward(d.list) {
		if x.Webhook == of && (before == 0 || x.ID < before) && len(list) < limit {
			list = append(list, x)
		}
	}
	return list, nil
}

func (d *deliveries) Add(_ context.Context, x webhook.Delivery) (webhook.Delivery, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x.ID, x.Status, x.NextAt = int64(len(d.list)+1), webhook.Pending, x.Created
	d.list = append(d.list, x)
	return x, nil
}

func (d *deliveries) Redeliver(_ context.Context, of, id int64, now time.Time) (webhook.Delivery, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id > int64(len(d.list)) || d.list[id-1].Webhook != of {
		return webhook.Delivery{}, webhook.ErrNone
	}
	x := &d.list[id-1]
	x.Status, x.NextAt = webhook.Pending, now
	return *x, nil
}

// attempt is what a deliverer does, which is not here.
func (d *deliveries) attempt(id int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &d.list[id-1]
	x.Status, x.Attempts, x.Attempted, x.Code, x.Took = webhook.Delivered, 1, time.Now(), 204, 7*time.Millisecond
}

func TestAWebhooksTestAnswersWithTheDelivery(t *testing.T) {
	sent := newDeliveries()
	w := newWorld(t, func(c *httpapi.Config) { c.Webhooks, c.TestWait = sent, 20*time.Second })
	ann := w.person("ann", "user")
	id := ann.do("POST", path("webhooks"), fields{"url": "https://example.org/hook"}).want(201).id("webhook_id")
	go func() {
		for {
			sent.mu.Lock()
			n := len(sent.list)
			sent.mu.Unlock()
			if n > 0 {
				sent.attempt(int64(n))
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	got := ann.do("POST", path("webhooks", id, "test"), nil).want(202).has(fields{"status": "delivered", "attempts": 1})
	if last, _ := got.Body["last"].(map[string]any); last["status_code"] != float64(204) {
		t.Errorf("what came of it: %s", got.Text)
	}
}

func TestWebhooks(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ann := w.person("ann", "user")
		created := ann.do("POST", path("webhooks"), fields{"url": "https://example.org/hook", "events": []string{"mapping_*"}, "description": "billing"}).want(201)
		id := created.id("webhook_id")
		created.has(fields{"user_id": ann.id, "scope": "own", "status": "active", "reason": nil, "secret": fmt.Sprintf("whsec_%d-1", id)})
		if got := created.Header.Get("Location"); got != path("webhooks", id) {
			t.Errorf("Location %s", got)
		}
		got := ann.do("GET", path("webhooks", id), nil).want(200).has(fields{"url": "https://example.org/hook", "description": "billing"})
		if _, shown := got.Body["secret"]; shown || strings.Contains(got.Text, "whsec") {
			t.Errorf("the secret is shown again: %s", got.Text)
		}
		w.as(ann.access, "GET", path("webhooks", id), nil, "If-None-Match", got.Header.Get("ETag")).want(304)
		w.as(ann.access, "PUT", path("webhooks", id), fields{"description": "x"}, "If-Match", `"9"`).fault(412, "version_conflict")
		ann.do("PUT", path("webhooks", id), fields{"events": []string{}, "url": "https://example.org/other"}).want(200).has(fields{"url": "https://example.org/other", "description": "billing"})
		ann.do("PUT", path("webhooks", id), fields{"webhook_id": 4711}).fault(422, "invalid", "body.webhook_id")
		ann.do("PUT", path("webhooks", id), fields{"user_id": 4711}).fault(422, "invalid", "body.user_id")
		ann.do("PUT", path("webhooks", id), fields{"user_id": ann.id, "webhook_id": id}).want(200)
		rotated := ann.do("POST", path("webhooks", id, "rotate-secret"), nil).want(200).has(fields{"secret": fmt.Sprintf("whsec_%d-2", id)})
		if rotated.Body["rotated_at"] == nil {
			t.Errorf("rotated: %s", rotated.Text)
		}
		ann.do("POST", path("webhooks", id, "disable"), nil).want(200).has(fields{"status": "disabled"})
		ann.do("POST", path("webhooks", id, "test"), nil).fault(409, "webhook_disabled", "path.id")
		ann.do("POST", path("webhooks", id, "enable"), nil).want(200).has(fields{"status": "active"})
		then := w.do("GET", path("webhooks", id)+"?as_of="+created.position(), nil).want(200).has(fields{"url": "https://example.org/hook"})
		if then.Header.Get("X-Position") != created.position() {
			t.Errorf("as of %s", then.Header.Get("X-Position"))
		}
		if got := ann.do("GET", path("webhooks"), nil).want(200).items("webhook_id"); !slices.Equal(got, []int64{id}) {
			t.Errorf("lists %v", got)
		}
		changed := w.do("GET", "/api/v1/audit?order=newest&type=webhook_changed&limit=1", nil).want(200).items("position")[0]
		w.do("POST", path("events", changed, "revert"), nil).want(200).has(fields{"command": "change_webhook"})
		ann.do("GET", path("webhooks", id), nil).want(200).has(fields{"url": "https://example.org/hook"})
		if dry := w.do("DELETE", path("webhooks", id)+"?dry_run=true", nil).want(200).names(); !slices.Equal(dry, []string{"webhook_deleted", "quota_returned"}) {
			t.Errorf("dry run: %v", dry)
		}
		ann.do("DELETE", path("webhooks", id), nil).want(204)
		ann.do("GET", path("webhooks", id), nil).fault(404, "webhook_not_found", "path.id")
		if text := w.do("GET", "/api/v1/audit?limit=500", nil).want(200).Text; strings.Contains(text, "whsec") {
			t.Error("the log has a secret")
		}
	})
}

func TestWebhooksThatAreRefused(t *testing.T) {
	w := newWorld(t)
	ann, root := w.person("ann", "user"), w.person("root", "admin")
	for _, tt := range []struct {
		body   fields
		status int
		code   string
		place  string
	}{
		{fields{"url": "http://example.org/"}, 422, "invalid", "body.url"},
		{fields{"url": "https://ann:secret@example.org/"}, 422, "invalid", "body.url"},
		{fields{"url": "https://"}, 422, "invalid", "body.url"},
		{fields{"url": "https://example.org/", "events": []string{"no_such"}}, 422, "invalid", "body.events"},
		{fields{"url": "https://example.org/", "scope": "all"}, 403, "scope_denied", "body.scope"},
		{fields{"url": "https://example.org/", "user_id": root.id}, 404, "user_not_found", "body.user_id"},
	} {
		ann.do("POST", path("webhooks"), tt.body).fault(tt.status, tt.code, tt.place)
	}
	for range 10 {
		ann.do("POST", path("webhooks"), fields{"url": "https://example.org/"}).want(201)
	}
	if p := ann.do("POST", path("webhooks"), fields{"url": "https://example.org/"}).fault(403, "quota_webhooks"); !strings.Contains(p.text("detail"), "may have 10") {
		t.Errorf("told %s", p.Text)
	}
	// A key reads through a webhook no more than by itself.
	blind := ann.do("POST", path("keys"), fields{"scopes": []string{"webhooks:write"}}).want(201).text("key")
	w.as(blind, "POST", path("webhooks"), fields{"url": "https://example.org/"}).fault(403, "scope_missing")
	everything := root.do("POST", path("webhooks"), fields{"url": "https://example.org/", "scope": "all"}).want(201).id("webhook_id")
	narrow := root.do("POST", path("keys"), fields{"scopes": []string{"read", "webhooks:write"}}).want(201).text("key")
	w.as(narrow, "POST", path("webhooks"), fields{"url": "https://example.org/", "scope": "all"}).fault(403, "scope_denied", "body.scope")
	w.as(narrow, "PUT", path("webhooks", everything), fields{"url": "https://evil.example/"}).fault(403, "scope_denied", "body.scope")
	w.as(narrow, "DELETE", path("webhooks", everything), nil).want(204)
	w.do("POST", path("webhooks"), fields{"url": "https://example.org/", "scope": "own"}).fault(422, "invalid", "body.scope")
	w.do("POST", path("webhooks"), fields{"url": "https://example.org/"}).want(201).has(fields{"scope": "all", "user_id": nil})
}

func TestDeliveries(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.person("ann", "user"), w.person("bob", "user")
	id := ann.do("POST", path("webhooks"), fields{"url": "https://example.org/"}).want(201).id("webhook_id")
	for range 3 {
		sent := ann.do("POST", path("webhooks", id, "test"), nil).want(202).has(fields{"type": "webhook_test", "status": "pending", "position": nil, "last": nil})
		if !strings.HasPrefix(sent.text("message_id"), "test-") {
			t.Errorf("%s", sent.Text)
		}
	}
	page := ann.do("GET", path("webhooks", id, "deliveries")+"?limit=2", nil).want(200)
	if got := page.items("delivery_id"); !slices.Equal(got, []int64{3, 2}) || page.id("next") != 2 {
		t.Errorf("%s", page.Text)
	}
	rest := ann.do("GET", path("webhooks", id, "deliveries")+"?limit=2&after=2", nil).want(200)
	if got := rest.items("delivery_id"); !slices.Equal(got, []int64{1}) || rest.Body["next"] != nil {
		t.Errorf("%s", rest.Text)
	}
	ann.do("POST", path("webhooks", id, "deliveries", 1, "redeliver"), nil).want(202).has(fields{"delivery_id": 1, "status": "pending"})
	ann.do("POST", path("webhooks", id, "deliveries", 9, "redeliver"), nil).fault(404, "delivery_not_found", "path.delivery")
	other := bob.thing("webhook", 0)
	bob.do("POST", path("webhooks", other, "deliveries", 1, "redeliver"), nil).fault(404, "delivery_not_found", "path.delivery")
}
