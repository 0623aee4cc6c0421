package webhook_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/webhook"
)

func TestEverybodyIsToldWhatTheyMaySee(t *testing.T) {
	w := newWorld(t)
	w.start()
	some, all, everything := newReceiver(w, w.keys.Secret(1, 1)), newReceiver(w, w.keys.Secret(2, 1)), newReceiver(w, w.keys.Secret(3, 1))
	operators := newReceiver(w, w.keys.Secret(4, 1))
	w.hook(1, ann, some.URL, "client_*")
	w.hook(2, ann, all.URL)
	w.do(domain.CreateWebhook{ID: 3, UserID: root, URL: everything.URL, Events: []string{"client_created"}, All: true})
	w.do(domain.CreateWebhook{ID: 4, URL: operators.URL, All: true, Events: []string{"client_created", "user_disabled"}})
	for n := range 6 {
		w.client(2*n, ann)
		w.client(2*n+1, bob)
	}
	w.eventually("all have come", func() bool {
		return len(some.messages()) == 6 && len(all.messages()) == 14 && len(everything.messages()) == 12 && len(operators.messages()) == 12
	})
	if got := all.types()[:4]; !slices.Equal(got, []string{"webhook_created", "quota_taken", "client_created", "quota_taken"}) {
		t.Errorf("told first of %v", got)
	}
	for name, r := range map[string]*receiver{"some": some, "all": all, "everything": everything} {
		last := domain.Position(0)
		for _, m := range r.messages() {
			if m.Position <= last {
				t.Errorf("%s: position %d came behind %d", name, m.Position, last)
			}
			last = m.Position
			if owner := m.Data["owner"].(float64); name != "everything" && int64(owner) != ann {
				t.Errorf("%s was told of the account %v", name, owner)
			}
		}
	}
	// A user who is not an admin any more, and a disabled user.
	w.do(domain.SetUserRole{ID: root, Role: domain.RoleUser})
	w.do(domain.SetUserEnabled{ID: ann})
	w.client(100, bob)
	w.client(101, root)
	w.eventually("the operator is told, and root", func() bool { return len(operators.messages()) == 15 && len(everything.messages()) == 13 })
	if n, m := len(everything.messages()), len(all.messages()); n != 13 || m != 14 {
		t.Errorf("root has %d messages, want their own one more than 12; ann %d, want 14", n, m)
	}
}

// A request about a client is visible to its owner. A request about a node belongs to
// nobody and is visible to admins only.
func TestADisconnectIsToldToItsOwnerAndADrainToAdmins(t *testing.T) {
	w := newWorld(t)
	w.start()
	names := []string{"client_disconnect_requested", "node_*"}
	owner, other, admin := newReceiver(w, w.keys.Secret(1, 1)), newReceiver(w, w.keys.Secret(2, 1)), newReceiver(w, w.keys.Secret(3, 1))
	w.hook(1, ann, owner.URL, names...)
	w.hook(2, bob, other.URL, names...)
	w.do(domain.CreateWebhook{ID: 3, UserID: root, URL: admin.URL, Events: names, All: true})
	w.client(0, ann)
	w.do(domain.DrainNode{ID: 1, Since: time.Unix(1, 0)})
	w.do(domain.DisconnectClient{ID: domain.FirstClientID, Nodes: []string{"node-001"}, Epoch: 1})
	w.client(1, bob)
	w.do(domain.DisconnectClient{ID: domain.FirstClientID + 1})
	w.eventually("all have come", func() bool {
		return len(owner.messages()) == 1 && len(other.messages()) == 1 && len(admin.messages()) == 3
	})
	if got := admin.types(); !slices.Equal(got, []string{"node_drain_requested", "client_disconnect_requested", "client_disconnect_requested"}) {
		t.Errorf("an admin is told of %v", got)
	}
	for whose, r := range map[int64]*receiver{ann: owner, bob: other} {
		if m := r.messages()[0]; m.Type != "client_disconnect_requested" || int64(m.Data["owner"].(float64)) != whose {
			t.Errorf("%d is told of %s: %v", whose, m.Type, m.Data)
		}
	}
}

func TestAReceiverDiesAndComesBack(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) {
		for range 200 {
			o.Schedule = append(o.Schedule, 50*time.Millisecond)
		}
	})
	r := newReceiver(w)
	address := r.Listener.Addr().String()
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("the first has come", func() bool { return len(r.messages()) == 1 })
	r.Close()
	for n := range 10 {
		w.client(1+n, ann)
	}
	w.eventually("it was tried in vain", func() bool {
		list := w.deliveries(1)
		return len(list) == 11 && list[1].Attempts > 1 && list[1].Status == webhook.Pending && list[1].Error != ""
	})
	again := &receiver{t: t}
	listener, err := net.Listen("tcp", address)
	w.must(err)
	again.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: again}}
	again.Start()
	t.Cleanup(again.Close)
	w.eventually("the rest has come", func() bool { return len(again.messages()) >= 10 })
	seen := map[string]bool{}
	for _, m := range again.messages() {
		seen[m.id] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d different messages of 10", len(seen))
	}
}

func TestWhatIsNotTakenIsSentAgainUnderTheSameID(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	var n atomic.Int64
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) {
		if n.Add(1) < 3 {
			out.WriteHeader(http.StatusInternalServerError)
		}
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("it was taken", func() bool {
		list := w.deliveries(1)
		return len(list) == 1 && list[0].Status == webhook.Delivered
	})
	got := r.messages()
	if len(got) != 3 || !equalBody(got[0], got[1]) || !equalBody(got[0], got[2]) {
		t.Errorf("%d messages %v", len(got), got)
	}
	if d := w.deliveries(1)[0]; d.Attempts != 3 || d.Failures != 2 || d.Code != 200 || d.Error != "" || d.Message != got[0].id {
		t.Errorf("%+v", d)
	}
}

// TestOneBadEventDoesNotHoldUpTheRest: a bad event does not delay the others, and a
// dead receiver does not delay those of others.
func TestOneBadEventDoesNotHoldUpTheRest(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	r.answer = func(out http.ResponseWriter, _ *http.Request, m message) {
		if m.Data["data"].(map[string]any)["name"] == "c0" {
			out.WriteHeader(http.StatusBadRequest)
		}
	}
	w.hook(1, ann, r.URL, "client_created")
	w.hook(2, ann, "http://127.0.0.1:1/", "client_created")
	for n := range 5 {
		w.client(n, ann)
	}
	w.eventually("the good ones are taken and the bad one is given up", func() bool {
		list := w.deliveries(1)
		return len(list) == 5 && list[0].Status == webhook.Failed &&
			!slices.ContainsFunc(list[1:], func(d webhook.Delivery) bool { return d.Status != webhook.Delivered })
	})
	bad := w.deliveries(1)[0]
	if bad.Attempts != 6 || bad.Code != 400 || !strings.Contains(bad.Error, "400 Bad Request") {
		t.Errorf("%+v", bad)
	}
	// Redelivery by hand sends it again, whatever its status is.
	r.answer = nil
	_, err := w.store.Redeliver(t.Context(), 1, bad.ID, w.now())
	w.must(err)
	w.eventually("it is taken in the end", func() bool { return w.deliveries(1)[0].Status == webhook.Delivered })
}

func TestWhatCannotBeShownDoesNotHoldUpTheRest(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) {
		show := o.Show
		o.Show = func(r domain.Record, e webhook.Endpoint) (any, error) {
			if strings.Contains(string(r.Data), `"c0"`) {
				return nil, errors.New("it is of tomorrow's version")
			}
			return show(r, e)
		}
	})
	r := newReceiver(w)
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.client(1, ann)
	w.eventually("the other one is taken", func() bool { list := w.deliveries(1); return len(list) == 2 && list[1].Status == webhook.Delivered })
	if d := w.deliveries(1)[0]; d.Status != webhook.Failed || d.Error != "this event cannot be shown" {
		t.Errorf("%+v", d)
	}
}

func TestAnswersThatAreNoSuccess(t *testing.T) {
	w := newWorld(t)
	trap := newReceiver(w)
	for name, tt := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request, message)
		code    int
		problem string
		slow    bool
	}{
		"a redirect is not followed": {func(out http.ResponseWriter, in *http.Request, _ message) {
			http.Redirect(out, in, trap.URL, http.StatusTemporaryRedirect)
		}, 307, "the receiver answered 307, a redirect", false},
		"a redirect to metadata is not followed": {func(out http.ResponseWriter, in *http.Request, _ message) {
			http.Redirect(out, in, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}, 302, "the receiver answered 302, a redirect", false},
		"a slow one is not waited for": {func(_ http.ResponseWriter, in *http.Request, _ message) { <-in.Context().Done() },
			0, "the receiver did not answer within", true},
		"one that closes": {func(http.ResponseWriter, *http.Request, message) { panic(http.ErrAbortHandler) },
			0, "the receiver closed the connection without an answer", false},
		"headers without end": {func(out http.ResponseWriter, _ *http.Request, _ message) {
			out.Header().Set("X-Big", strings.Repeat("x", 1<<20))
		}, 0, "the receiver's answer was not HTTP", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start(func(o *webhook.Options) {
				o.Timeout, o.Schedule = patience, []time.Duration{time.Hour}
				if tt.slow {
					o.Timeout = 300 * time.Millisecond
				}
			})
			r := newReceiver(w)
			r.answer = tt.answer
			w.hook(1, ann, r.URL, "client_created")
			w.client(0, ann)
			w.eventually("it was tried", func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Attempts == 1 })
			if d := w.deliveries(1)[0]; d.Status != webhook.Pending || d.Code != tt.code || !strings.HasPrefix(d.Error, tt.problem) {
				t.Errorf("%+v", d)
			}
		})
	}
	t.Cleanup(func() {
		if n := len(trap.messages()); n > 0 {
			t.Errorf("the redirect was followed %d times", n)
		}
	})
}

func TestAReceiverThatSwitchesProtocolsHoldsNobodyUp(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) { o.Schedule = []time.Duration{time.Hour} })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	var serving sync.WaitGroup
	w.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: silence\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn) // until the other side closes
			})
		}
	})
	w.hook(1, ann, "http://"+listener.Addr().String(), "client_created")
	w.client(0, ann)
	w.eventually("it was tried", func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Attempts == 1 })
	if d := w.deliveries(1)[0]; d.Status != webhook.Pending || d.Code != 101 {
		t.Errorf("%+v", d)
	}
}

// TestSlowReceiversOfManyDoNotStarveAnother: slow receivers may use every place, and
// have waited longer.
func TestSlowReceiversOfManyDoNotStarveAnother(t *testing.T) {
	const slowUsers, each, events = 16, 4, 30 // as many as can be sent to at once
	w := newWorld(t)
	slow, quick := newReceiver(w), newReceiver(w)
	slow.answer = func(http.ResponseWriter, *http.Request, message) { time.Sleep(200 * time.Millisecond) }
	for n := range int64(slowUsers) {
		user := root + 1 + n
		w.do(domain.CreateUser{ID: user, Username: fmt.Sprint("slow", n), Email: fmt.Sprintf("slow%d@example.org", n), Role: domain.RoleAdmin})
		for i := range int64(each) {
			w.do(domain.CreateWebhook{ID: 100 + n*each + i, UserID: user, URL: slow.URL, Events: []string{"client_created"}, All: true})
		}
	}
	w.start()
	w.hook(1, ann, quick.URL, "client_created")
	for n := range events {
		w.client(n, bob)
	}
	w.eventually("every place is taken", func() bool { return len(slow.messages()) >= slowUsers*each })
	w.client(events, ann)
	w.eventually("another one is told", func() bool { return len(quick.messages()) == 1 })
	if n := len(slow.messages()); n > slowUsers*each*events/2 {
		t.Errorf("the slow ones were sent %d messages before", n)
	}
}

func TestABodyWithoutEndIsNotRead(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	var written atomic.Int64
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) {
		for part := make([]byte, 1<<16); ; {
			n, err := out.Write(part)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("it is taken: the status says so", func() bool {
		list := w.deliveries(1)
		return len(list) == 1 && list[0].Status == webhook.Delivered
	})
	if n := written.Load(); n > 64<<20 {
		t.Errorf("%d bytes were sent before the connection ended", n)
	}
}

func TestRetryAfterIsRespected(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	var n atomic.Int64
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) {
		if n.Add(1) == 1 {
			out.Header().Set("Retry-After", "600")
			out.WriteHeader(http.StatusTooManyRequests)
		}
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("it was asked to wait", func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Code == 429 })
	d := w.deliveries(1)[0]
	if wait := d.NextAt.Sub(d.Attempted); wait < 599*time.Second || wait > 700*time.Second {
		t.Errorf("it is sent again after %v", wait)
	}
	w.client(1, ann) // nor is anything else sent
	w.eventually("the second waits", func() bool { return len(w.deliveries(1)) == 2 })
	w.pass(590 * time.Second)
	if got := len(r.messages()); got != 1 {
		t.Errorf("%d messages within the time it asked for", got)
	}
	w.pass(60 * time.Second)
	w.eventually("both are sent afterwards", func() bool { return len(r.messages()) == 3 })
}

func (w *world) webhook(id int64) *domain.Webhook {
	w.Helper()
	records, err := w.log.ReadStream(w.Context(), domain.WebhookStream(id), 0, 100)
	w.must(err)
	state := &domain.Webhook{}
	w.must(domain.Fold(state, records))
	if state.Disabled {
		if last := records[len(records)-1]; last.Meta.Actor != "system" || last.Owner != ann {
			w.Errorf("disabled by %s, of %d", last.Meta.Actor, last.Owner)
		}
	}
	return state
}

func TestGoneDisables(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) { out.WriteHeader(http.StatusGone) }
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("it is disabled", func() bool { return w.webhook(1).Disabled })
	if reason := w.webhook(1).Reason; reason != "The receiver answered 410 Gone." {
		t.Errorf("reason %q", reason)
	}
	w.client(1, ann) // this event is not for the webhook
	r.answer = nil
	w.do(domain.SetWebhookEnabled{ID: 1, Enabled: true})
	w.client(2, ann)
	w.eventually("what waited is sent, and what came afterwards", func() bool {
		list := w.deliveries(1)
		return len(list) == 2 && list[0].Status == webhook.Delivered && list[1].Status == webhook.Delivered
	})
}

func TestThreeDaysOfFailuresDisable(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) {
		o.Schedule = []time.Duration{time.Hour, 24 * time.Hour, 24 * time.Hour, 36 * time.Hour}
	})
	r := newReceiver(w)
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) {
		out.WriteHeader(http.StatusInternalServerError)
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	attempts := func(n int) func() bool {
		return func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Attempts == n }
	}
	w.eventually("the first attempt", attempts(1))
	for n, wait := range []time.Duration{2 * time.Hour, 30 * time.Hour, 30 * time.Hour} {
		w.pass(wait)
		w.eventually("the next attempt", attempts(n+2))
	}
	if w.webhook(1).Disabled {
		t.Error("disabled before three days were over")
	}
	w.pass(45 * time.Hour)
	w.eventually("it is disabled", func() bool { return w.webhook(1).Disabled })
	if reason := w.webhook(1).Reason; !strings.Contains(reason, "three days") || !strings.Contains(reason, "500 Internal Server Error") {
		t.Errorf("reason %q", reason)
	}
}

// TestAMachineThatSleptDisablesNothingAtOnce: days have passed, but a receiver that
// failed before them and after them has not failed for days.
func TestAMachineThatSleptDisablesNothingAtOnce(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) {
		o.Schedule = []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour}
	})
	r := newReceiver(w)
	r.answer = func(out http.ResponseWriter, _ *http.Request, _ message) {
		out.WriteHeader(http.StatusInternalServerError)
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	for n, slept := range []time.Duration{0, 100 * time.Hour, 2 * time.Hour, 4 * time.Hour} {
		w.pass(slept)
		w.eventually("the next attempt", func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Attempts == n+1 })
	}
	if hook := w.webhook(1); hook.Disabled { // an attempt waits for the result of the one before
		t.Errorf("disabled: %s", hook.Reason)
	}
	w.pass(8 * time.Hour)
	w.eventually("it is disabled", func() bool { return w.webhook(1).Disabled })
}

// TestAProcessThatEndsInTheMiddleMissesNothing: a message that the receiver has, and
// whose result nobody stored, is sent again under the same id.
func TestAProcessThatEndsInTheMiddleMissesNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w)
	arrived, leave := make(chan struct{}, 100), make(chan struct{})
	r.answer = func(_ http.ResponseWriter, in *http.Request, _ message) {
		arrived <- struct{}{}
		select {
		case <-leave:
		case <-in.Context().Done():
		}
	}
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	<-arrived
	w.stop()
	for n := range 5 { // while nobody delivers
		w.client(1+n, ann)
	}
	close(leave)
	w.start()
	w.eventually("all are taken", func() bool {
		list := w.deliveries(1)
		return len(list) == 6 && !slices.ContainsFunc(list, func(d webhook.Delivery) bool { return d.Status != webhook.Delivered })
	})
	got := r.messages()
	if len(got) != 7 || !equalBody(got[0], got[1]) {
		t.Errorf("%d messages; the first two are %s and %s", len(got), got[0].id, got[1].id)
	}
}

func TestBothSecretsSignAfterARotation(t *testing.T) {
	w := newWorld(t)
	w.start()
	r := newReceiver(w, w.keys.Secret(1, 1))
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("the first has come", func() bool { return len(r.messages()) == 1 })
	w.do(domain.RotateWebhookSecret{ID: 1})
	r.mu.Lock()
	r.secrets = append(r.secrets, w.keys.Secret(1, 2))
	r.mu.Unlock()
	w.client(1, ann)
	w.eventually("the second has come", func() bool { return len(r.messages()) == 2 })
	w.pass(domain.SecretGrace)
	r.mu.Lock()
	r.secrets = r.secrets[1:]
	r.mu.Unlock()
	w.client(2, ann)
	w.eventually("the third has come", func() bool { return len(r.messages()) == 3 })
	for n, want := range []int{1, 2, 1} {
		if m := r.messages()[n]; len(strings.Fields(m.signature)) != want {
			t.Errorf("message %d has the signatures %s, want %d", n, m.signature, want)
		}
	}
	if w.keys.Secret(1, 1) == w.keys.Secret(1, 2) || w.keys.Secret(1, 1) == w.keys.Secret(2, 1) || !strings.HasPrefix(w.keys.Secret(1, 1), "whsec_") {
		t.Error("secrets are alike")
	}
	if text := fmt.Sprintf("%v %+v %#v %s", w.keys, w.keys, w.keys, w.keys); strings.ContainsAny(text, "0123456789") {
		t.Errorf("the key prints as %s", text)
	}
}

// TestClosedNetworksAreNotReached, however the address is written, and although there
// is a receiver.
func TestClosedNetworksAreNotReached(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) { o.Networks = webhook.Networks{}; o.Schedule = []time.Duration{time.Hour} })
	r := newReceiver(w)
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	w.must(err)
	hosts := []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "[::]", "2130706433", "0x7f.1", "169.254.169.254"}
	for i, host := range hosts {
		w.do(domain.CreateWebhook{ID: int64(1 + i), URL: "http://" + host + ":" + port + "/", All: true, Events: []string{"client_created"}})
	}
	w.client(0, ann)
	for i, host := range hosts {
		id := int64(1 + i)
		w.eventually(host+" was tried", func() bool { list := w.deliveries(id); return len(list) == 1 && list[0].Attempts == 1 })
		d := w.deliveries(id)[0]
		// Unusual forms of an address are names, which nobody has. If a resolver reads
		// them as addresses, the guard stops them.
		if !strings.Contains(d.Error, "webhooks may not reach") && !strings.Contains(d.Error, "could not be resolved") || d.Code != 0 {
			t.Errorf("%s: %+v", host, d)
		}
	}
	if n := len(r.messages()); n > 0 {
		t.Errorf("%d messages came through", n)
	}
}

func TestHTTPIsRefusedUnlessAllowed(t *testing.T) {
	w := newWorld(t)
	w.start(func(o *webhook.Options) { o.AllowHTTP = false; o.Schedule = []time.Duration{time.Hour} })
	r := newReceiver(w)
	w.hook(1, ann, r.URL, "client_created")
	w.client(0, ann)
	w.eventually("it was tried", func() bool { list := w.deliveries(1); return len(list) == 1 && list[0].Attempts == 1 })
	if d := w.deliveries(1)[0]; !strings.Contains(d.Error, "not https") || len(r.messages()) > 0 {
		t.Errorf("%+v", d)
	}
}

// TestALogFromElsewhereIsNotToldAgain: its webhooks come with it, and get the events
// from then on.
func TestALogFromElsewhereIsNotToldAgain(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(w)
	w.hook(1, ann, r.URL, "client_created")
	w.hook(2, ann, r.URL, "client_created")
	w.client(0, ann)
	w.do(domain.DeleteWebhook{ID: 2})
	w.start()
	w.client(1, ann)
	w.eventually("the new one has come", func() bool { return len(r.messages()) == 1 })
	if m := r.messages()[0]; m.Data["data"].(map[string]any)["name"] != "c1" {
		t.Errorf("told of %s", m.body)
	}
}

// TestALogThatWasTakenBack: the positions of a rolled back log are used again, and
// their new records are delivered.
func TestALogThatWasTakenBack(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(w)
	w.hook(1, ann, r.URL, "client_created")
	gone := webhook.Endpoint{Webhook: domain.Webhook{ID: 2, UserID: ann, URL: r.URL}}
	w.must(w.store.Begin(t.Context(), 1000, []webhook.Endpoint{gone}))
	var late []webhook.Delivery
	for p := range domain.Position(100) {
		late = append(late, webhook.Delivery{Webhook: 2, Message: "x", Position: p + 1, Event: "client_created"})
	}
	w.must(w.store.Advance(t.Context(), webhook.Advance{From: 1000, To: 1100, Now: w.now(), Deliveries: late}))
	w.start()
	w.client(0, ann)
	w.eventually("it is told", func() bool { return len(r.messages()) == 1 })
	if list := w.deliveries(2); len(list) > 0 {
		t.Errorf("%d deliveries are left of a webhook that never was", len(list))
	}
}
