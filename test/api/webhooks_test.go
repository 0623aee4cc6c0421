package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/tunnox-net/tunnox/test/apiclient"
	"github.com/tunnox-net/tunnox/test/programs"
)

// sent is a message that a receiver accepted.
type sent struct {
	id, signature, timestamp string
	body                     []byte
	Type                     string
	Position                 int64
	Data                     json.RawMessage
}

// webhooks is about webhooks and their deliveries.
func (s *story) webhooks() {
	t, c := s.T, s.admin
	var mu sync.Mutex
	var got []sent
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := sent{id: r.Header.Get("webhook-id"), signature: r.Header.Get("webhook-signature"), timestamp: r.Header.Get("webhook-timestamp"), body: body}
		if err != nil || json.Unmarshal(body, &m) != nil {
			t.Errorf("was sent %q, %v", body, err)
		}
		mu.Lock()
		got = append(got, m)
		mu.Unlock()
	}))
	t.Cleanup(receiver.Close)
	wait := func(n int) []sent {
		t.Helper()
		programs.Eventually(t, 20*time.Second, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(got) < n {
				return fmt.Errorf("%d messages have come of %d", len(got), n)
			}
			return nil
		})
		mu.Lock()
		defer mu.Unlock()
		return append([]sent(nil), got...)
	}

	user := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "hooked", Email: "hooked@example.org"})).want(t, 201).JSON201.UserId
	made := call(c.CreateWebhookWithResponse(s.ctx, nil, apiclient.CreateWebhookBody{UserId: &user, Url: receiver.URL, Events: nullable.NewNullableWithValue([]string{"client_*"}),
		Description: ptr("tells")})).want(t, 201).JSON201
	id, secret := made.WebhookId, *made.Secret
	is(t, "the webhook", call(c.GetWebhookWithResponse(s.ctx, id, nil)).want(t, 200).JSON200.Url, receiver.URL)
	is(t, "the user's webhooks", len(call(c.ListWebhooksWithResponse(s.ctx, &apiclient.ListWebhooksParams{UserId: &user})).want(t, 200).JSON200.Items), 1)

	s.client(user, "first")
	first := wait(1)[0]
	if !verified(secret, first) {
		t.Errorf("the signature %s of %s is wrong", first.signature, first.body)
	}
	// A message contains what the audit shows.
	records := call(c.AuditWithResponse(s.ctx, &apiclient.AuditParams{Owner: &user, Type: &[]string{"client_created"}})).want(t, 200)
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(records.Body, &page); err != nil {
		t.Fatal(err)
	}
	is(t, "the type", first.Type, "client_created")
	is(t, "the position", first.Position, records.JSON200.Items[0].Position)
	// The operator made the client, and the webhook is a user's: the operator's address
	// is for admins only.
	shown := withoutSource(s.T, page.Items[0])
	if !sameJSON(first.Data, shown) {
		t.Errorf("was sent %s, the audit shows %s", first.Data, shown)
	}

	rotated := call(c.RotateWebhookSecretWithResponse(s.ctx, id, nil)).want(t, 200).JSON200
	test := call(c.TestWebhookWithResponse(s.ctx, id, nil)).want(t, 202).JSON202
	second := wait(2)[1]
	is(t, "what a test is", []string{second.Type, second.id}, []string{"webhook_test", test.MessageId})
	if !verified(*rotated.Secret, second) || !verified(secret, second) {
		t.Errorf("of %s only one secret is good", second.signature)
	}
	var sentBefore apiclient.Delivery
	programs.Eventually(t, 10*time.Second, func() error { // it is recorded after the answer
		sentBefore = call(c.ListDeliveriesWithResponse(s.ctx, id, nil)).want(t, 200).JSON200.Items[0]
		if sentBefore.Status != apiclient.Delivered || sentBefore.DeliveryId != test.DeliveryId {
			return fmt.Errorf("the newest delivery is %+v", sentBefore)
		}
		return nil
	})
	call(c.RedeliverWithResponse(s.ctx, id, test.DeliveryId)).want(t, 202)
	is(t, "the id of what is sent again", wait(3)[2].id, second.id)

	is(t, "what it is told from now on", len(call(c.ChangeWebhookWithResponse(s.ctx, id, nil, apiclient.ChangeWebhookBody{Events: &[]string{}})).want(t, 200).JSON200.Events), 0)
	is(t, "disabled", call(c.DisableWebhookWithResponse(s.ctx, id, nil)).want(t, 200).JSON200.Status, apiclient.WebhookStatusDisabled)
	s.problem(call(c.TestWebhookWithResponse(s.ctx, id, nil)).want(t, 409).ApplicationproblemJSON409, 409, "webhook_disabled", "path.id")
	is(t, "enabled", call(c.EnableWebhookWithResponse(s.ctx, id, nil)).want(t, 200).JSON200.Status, apiclient.WebhookStatusActive)
	is(t, "what it is told first", []string{wait(5)[3].Type, wait(5)[4].Type}, []string{"webhook_changed", "webhook_enabled"})
	call(c.DeleteWebhookWithResponse(s.ctx, id, nil)).want(t, 204)
	s.problem(call(c.GetWebhookWithResponse(s.ctx, id, nil)).want(t, 404).ApplicationproblemJSON404, 404, "webhook_not_found", "path.id")
}

// verified is the check that Standard Webhooks asks of a receiver.
func verified(secret string, m sent) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", m.id, m.timestamp, m.body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for one := range strings.FieldsSeq(m.signature) {
		if hmac.Equal([]byte(one), []byte(want)) {
			return true
		}
	}
	return false
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// withoutSource gives an event without the address of its actor.
func withoutSource(t *testing.T, event json.RawMessage) json.RawMessage {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(event, &fields); err != nil {
		t.Fatal(err)
	}
	meta, ok := fields["meta"].(map[string]any)
	if !ok || meta["source"] == nil {
		t.Fatalf("the audit shows no source to the operator: %s", event)
	}
	delete(meta, "source")
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
