package webhook_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	eventlog "github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ann, bob, root = domain.FirstUserID, domain.FirstUserID + 1, domain.FirstUserID + 2
	patience       = 60 * time.Second // for work in the background, on a busy machine
)

// world is the log and the deliveries of the embedded form, with a clock that can be
// moved forward.
type world struct {
	*testing.T
	log      *eventlog.Store
	executor *eventstore.Executor
	store    webhook.Store
	keys     webhook.Keys
	stop     func() // ends the deliverer, as a killed process ends

	mu      sync.Mutex
	forward time.Duration // guarded by mu
}

func newWorld(t *testing.T) *world {
	t.Parallel()
	w := &world{T: t}
	file := filepath.Join(t.TempDir(), "log.db")
	_, err := eventlog.Migrate(t.Context(), file)
	w.must(err)
	w.log, err = eventlog.Open(t.Context(), file)
	w.must(err)
	t.Cleanup(func() { w.must(w.log.Close()) })
	w.store, err = sqlite.Open(t.Context(), file)
	w.must(err)
	t.Cleanup(func() { w.must(w.store.Close()) })
	w.keys, err = webhook.ParseKeys(webhook.NewKey())
	w.must(err)
	w.executor = eventstore.NewExecutor(w.log, eventstore.ExecutorOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.executor.Run(ctx) }) // ends with the context's error
	t.Cleanup(func() { cancel(); running.Wait() })
	for id, name := range map[int64]string{ann: "ann", bob: "bob"} {
		w.do(domain.CreateUser{ID: id, Username: name, Email: name + "@example.org"})
	}
	w.do(domain.CreateUser{ID: root, Username: "root", Email: "root@example.org", Role: domain.RoleAdmin})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.forward)
}

// pass moves the clock forward.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forward += d
}

func (w *world) do(c domain.Command) domain.Receipt {
	w.Helper()
	r, err := w.executor.Submit(context.Background(), domain.Submission{Command: c, Meta: domain.Metadata{At: w.now().UTC(), Actor: "key:test"}})
	w.must(err)
	return r
}

// start begins the deliverer. The end of the test or stop ends it and waits for it.
func (w *world) start(change ...func(*webhook.Options)) {
	w.Helper()
	loopback, err := webhook.ParseNetworks("127.0.0.1/32")
	w.must(err)
	o := webhook.Options{Keys: w.keys, Networks: loopback, AllowHTTP: true, Version: "test",
		Show: func(r domain.Record, _ webhook.Endpoint) (any, error) { return r, nil },
		Disable: func(ctx context.Context, id int64, reason string) error {
			_, err := w.executor.Submit(ctx, domain.Submission{Command: domain.SetWebhookEnabled{ID: id, Reason: reason},
				Meta: domain.Metadata{At: w.now().UTC(), Actor: "system"}})
			return err
		},
		Schedule: []time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond, 160 * time.Millisecond, 320 * time.Millisecond},
		Clock:    w.now}
	for _, c := range change {
		c(&o)
	}
	d := webhook.NewDeliverer(w.store, w.log, o)
	w.must(d.Begin(w.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	w.Cleanup(w.stop)
}

// hook makes a webhook of a user for a receiver.
func (w *world) hook(id, user int64, url string, events ...string) {
	w.Helper()
	w.do(domain.CreateWebhook{ID: id, UserID: user, URL: url, Events: events})
}

// client makes a client of a user, which is one event.
func (w *world) client(n int, user int64) {
	w.Helper()
	w.do(domain.CreateClient{ID: domain.FirstClientID + int64(n), UserID: user, Name: fmt.Sprint("c", n), PublicKey: make([]byte, 32)})
}

// deliveries lists the deliveries of a webhook, the oldest first.
func (w *world) deliveries(id int64) []webhook.Delivery {
	w.Helper()
	list, err := w.store.List(context.Background(), id, 0, 1000)
	w.must(err)
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// eventually waits until is gives true.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for until := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			w.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// message is a received message.
type message struct {
	id        string
	signed    time.Time
	body      []byte
	signature string
	Type      string
	Position  domain.Position
	Data      map[string]any
}

// receiver is the server of a receiver. It checks signatures as the specification says,
// with code of its own.
type receiver struct {
	*httptest.Server
	t      *testing.T
	answer func(http.ResponseWriter, *http.Request, message)

	mu      sync.Mutex
	secrets []string  // guarded by mu; messages are checked with all of them
	got     []message // guarded by mu
}

func newReceiver(w *world, secrets ...string) *receiver {
	r := &receiver{t: w.T, secrets: secrets}
	r.Server = httptest.NewServer(r)
	w.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return // the sender cancelled the attempt
	}
	m := message{id: in.Header.Get("webhook-id"), body: body, signature: in.Header.Get("webhook-signature")}
	seconds, err := strconv.ParseInt(in.Header.Get("webhook-timestamp"), 10, 64)
	m.signed = time.Unix(seconds, 0)
	if err != nil || json.Unmarshal(body, &m) != nil || in.Method != http.MethodPost || in.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %v: %s", in.Method, in.Header, body)
	}
	r.mu.Lock()
	for _, secret := range r.secrets {
		if !verify(secret, in.Header, body) {
			r.t.Errorf("the signature of %s is wrong: %s", m.id, m.signature)
		}
	}
	r.got = append(r.got, m)
	r.mu.Unlock()
	if r.answer != nil {
		r.answer(out, in, m)
	}
}

// verify is Standard Webhooks' "Verifying webhook authenticity".
func verify(secret string, header http.Header, body []byte) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", header.Get("webhook-id"), header.Get("webhook-timestamp"), body)
	for signature := range strings.FieldsSeq(header.Get("webhook-signature")) {
		if got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,")); err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func (r *receiver) messages() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]message(nil), r.got...)
}

// types gives the types of the received messages, in order.
func (r *receiver) types() (types []string) {
	for _, m := range r.messages() {
		types = append(types, m.Type)
	}
	return types
}

func equalBody(a, b message) bool { return a.id == b.id && bytes.Equal(a.body, b.body) }
