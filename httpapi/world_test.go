package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

const apiKey = "test-key-of-more-than-thirty-two-characters"

// world is the API over a log in memory and the real read models.
type world struct {
	t       testing.TB
	log     *memoryLog // nil over a real store
	handler http.Handler
}

func newWorld(t testing.TB, change ...func(*httpapi.Config)) *world {
	t.Helper()
	log := newMemoryLog()
	w := build(t, log, log, followed{log}, memory.New(), change...)
	w.log = log
	return w
}

// newStoredWorld is the API over the executor and the store of the embedded form.
func newStoredWorld(t testing.TB) *world {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log.db")
	if _, err := sqlite.Migrate(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return buildStored(t, store, memory.New())
}

// newClusterWorld is the API over the executor and the stores of a cluster.
func newClusterWorld(t testing.TB) *world {
	t.Helper()
	url := services.Postgres(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	store, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	options, err := goredis.ParseURL(services.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(options)
	record, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	rows := redis.New(client, record.Trust(), nil)
	t.Cleanup(func() {
		if err := errors.Join(rows.Close(), client.Close()); err != nil {
			t.Error(err)
		}
	})
	return buildStored(t, store, rows)
}

// buildStored is build with the real executor over a real log.
func buildStored(t testing.TB, store eventstore.Store, rows projections.Store) *world {
	t.Helper()
	executor := eventstore.NewExecutor(store, eventstore.ExecutorOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = executor.Run(ctx) }) // ends with the context's error
	t.Cleanup(func() { cancel(); running.Wait() })
	return build(t, executor, store, store, rows)
}

// onEach runs a test over the log in memory and over that of the embedded form.
func onEach(t *testing.T, test func(*testing.T, *world)) {
	t.Run("memory", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("sqlite", func(t *testing.T) { test(t, newStoredWorld(t)) })
}

// onEveryForm is onEach with the stores of a cluster beside, for what asks them in
// ways of its own. That all of the API works over them is tested in test/api.
func onEveryForm(t *testing.T, test func(*testing.T, *world)) {
	for name, world := range map[string]func(testing.TB) *world{
		"memory": func(t testing.TB) *world { return newWorld(t) }, "sqlite": newStoredWorld, "postgres and redis": newClusterWorld,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, world(t))
		})
	}
}

// whole is all that httpapi asks of a log.
type whole interface {
	httpapi.History
	httpapi.Search
}

func build(t testing.TB, executor httpapi.Executor, history whole, log projections.Log, rows projections.Store,
	change ...func(*httpapi.Config)) *world {
	t.Helper()
	projector := projections.NewProjector(log, rows, projections.Options{})
	reader := projections.NewReader(rows)
	reader.BelieveLog(history) // as in a server: no row holds the hash of a password
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = projector.Run(ctx) }) // ends with the context's error
	t.Cleanup(func() { cancel(); running.Wait() })
	if err := projector.Ready(t.Context()); err != nil { // a server answers no list before
		t.Fatal(err)
	}
	config := httpapi.Config{
		Executor: executor, History: history, Search: history, Reader: reader, Past: memory.NewPast(log),
		Eraser:        &erasures{},
		NewCredential: newCredential,
		JoinCode: func(_ context.Context, id int64, secret []byte) (string, error) {
			return fmt.Sprintf("tnxj_%d_%x", id, secret), nil
		},
		Usage:       noneUsed{},
		Webhooks:    newDeliveries(),
		Keys:        []httpapi.Key{{Name: "other", Hash: httpapi.HashKey("another")}, {Name: "admin", Hash: httpapi.HashKey(apiKey)}},
		Version:     httpapi.Version{Version: "0.0.1-test"},
		TestWait:    time.Millisecond, // nobody delivers here
		WaitTimeout: 10 * time.Second, // longer than any stall of a busy machine
	}
	for _, c := range change {
		c(&config)
	}
	handler, err := httpapi.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, handler: handler}
}

func newCredential() (string, []byte, error) {
	public, private, err := ed25519.GenerateKey(nil)
	return "tnx_" + base64.RawURLEncoding.EncodeToString(private.Seed()), public, err
}

// answer is what came back, with its body decoded.
type answer struct {
	t      testing.TB
	call   string
	Status int
	Header http.Header
	Text   string
	Body   map[string]any
}

// do sends a request with the key. body is JSON text or a value; header is
// name, value, name, value.
func (w *world) do(method, path string, body any, header ...string) *answer {
	w.t.Helper()
	return w.send(w.request(method, path, body, append([]string{"Authorization", "Bearer " + apiKey}, header...)...))
}

func (w *world) request(method, path string, body any, header ...string) *http.Request {
	w.t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			w.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(text))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func (w *world) send(r *http.Request) *answer {
	w.t.Helper()
	if strings.HasSuffix(r.URL.Path, "/stream") {
		// A live stream ends when its reader goes.
		ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
		defer cancel()
		r = r.WithContext(ctx)
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := &answer{t: w.t, call: r.Method + " " + r.URL.Path, Status: rec.Code, Header: rec.Result().Header, Text: rec.Body.String()}
	if strings.HasSuffix(a.Header.Get("Content-Type"), "json") && !strings.HasSuffix(a.Header.Get("Content-Type"), "ndjson") && a.Text != "" {
		if err := json.Unmarshal(rec.Body.Bytes(), &a.Body); err != nil {
			w.t.Fatalf("%s: body is not JSON: %v\n%s", a.call, err, a.Text)
		}
	}
	return a
}

// want fails the test unless the status is as wanted.
func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Fatalf("%s: status %d, want %d\n%s", a.call, a.Status, status, a.Text)
	}
	return a
}

// fault fails the test unless the answer is a problem with this status, code and
// these places, in any order.
func (a *answer) fault(status int, code string, places ...string) *answer {
	a.t.Helper()
	a.want(status)
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("%s: content type %q", a.call, got)
	}
	if a.Body["code"] != code {
		a.t.Errorf("%s: code %v, want %s\n%s", a.call, a.Body["code"], code, a.Text)
	}
	for _, field := range []string{"type", "title", "detail", "request_id", "instance"} {
		if s, _ := a.Body[field].(string); s == "" {
			a.t.Errorf("%s: no %s in %s", a.call, field, a.Text)
		}
	}
	if got := int(a.Body["status"].(float64)); got != status {
		a.t.Errorf("%s: status in body %d, want %d", a.call, got, status)
	}
	got := map[string]bool{}
	list, _ := a.Body["errors"].([]any)
	for _, e := range list {
		f := e.(map[string]any)
		got[f["location"].(string)] = true
		if f["message"] == "" {
			a.t.Errorf("%s: a fault without a message\n%s", a.call, a.Text)
		}
	}
	for _, place := range places {
		if !got[place] {
			a.t.Errorf("%s: no fault at %s\n%s", a.call, place, a.Text)
		}
		delete(got, place)
	}
	if len(places) > 0 && len(got) > 0 {
		a.t.Errorf("%s: more faults than wanted: %v\n%s", a.call, got, a.Text)
	}
	return a
}

// id gives an id of the body.
func (a *answer) id(field string) int64 {
	a.t.Helper()
	n, ok := a.Body[field].(float64)
	if !ok {
		a.t.Fatalf("%s: no %s in %s", a.call, field, a.Text)
	}
	return int64(n)
}

func (a *answer) position() string { return a.Header.Get("X-Position") }

// has fails the test unless the body's fields have these values.
func (a *answer) has(fields map[string]any) *answer {
	a.t.Helper()
	for name, want := range fields {
		got := a.Body[name]
		if g, ok := got.(float64); ok {
			got = strconv.FormatFloat(g, 'f', -1, 64)
			want = fmt.Sprint(want)
		}
		if got != want {
			a.t.Errorf("%s: %s = %v, want %v", a.call, name, got, want)
		}
	}
	return a
}

// items gives the ids of a list.
func (a *answer) items(field string) []int64 {
	a.t.Helper()
	list, ok := a.Body["items"].([]any)
	if !ok {
		a.t.Fatalf("%s: no items in %s", a.call, a.Text)
	}
	ids := []int64{}
	for _, item := range list {
		ids = append(ids, int64(item.(map[string]any)[field].(float64)))
	}
	return ids
}

type fields = map[string]any

func (w *world) user(name string) int64 {
	w.t.Helper()
	return w.do("POST", "/api/v1/users", fields{"username": name, "email": name + "@example.org"}).want(201).id("user_id")
}

func (w *world) client(user int64, name string) int64 {
	w.t.Helper()
	return w.do("POST", "/api/v1/clients", fields{"user_id": user, "client_name": name}).want(201).id("client_id")
}

// rule gives the body of a mapping from source to target on a port.
func rule(user, source, target int64, port int) fields {
	return fields{"user_id": user, "source_client_id": source, "target_client_id": target, "protocol": "tcp",
		"local_port": port, "target_host": "127.0.0.1", "target_port": 80}
}

func (w *world) mapping(user, source, target int64, port int) int64 {
	w.t.Helper()
	return w.do("POST", "/api/v1/mappings", rule(user, source, target, port)).want(201).id("mapping_id")
}

// path makes a path below the prefix of its parts.
func path(parts ...any) string {
	s := "/api/v1"
	for _, p := range parts {
		s += "/" + fmt.Sprint(p)
	}
	return s
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }
