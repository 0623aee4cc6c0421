package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"log/slog"

	"github.com/tunnox-net/tunnox/httpapi"
)

// all reads a list to its end, page by page.
func (w *world) all(query string) (positions []int64) {
	w.t.Helper()
	for after := "0"; ; {
		page := w.do("GET", "/api/v1/audit?limit=3&after="+after+"&"+query, nil).want(200)
		positions = append(positions, page.items("position")...)
		next, more := page.Body["next"].(float64)
		if !more {
			return positions
		}
		after = strconv.FormatFloat(next, 'f', -1, 64)
	}
}

// lines gives the positions of an answer in NDJSON.
func (a *answer) lines() (positions []int64) {
	a.t.Helper()
	for line := range strings.Lines(a.Text) {
		var e struct {
			Position int64
			Name     string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Name == "" {
			a.t.Fatalf("line %q: %v", line, err)
		}
		positions = append(positions, e.Position)
	}
	return positions
}

func TestAuditFindsWhatWasAskedFor(t *testing.T) {
	onEveryForm(t, func(t *testing.T, w *world) {
		ann := w.user("ann")
		between := time.Now()
		time.Sleep(2 * time.Millisecond) // the store's clock and ours are the same, to the microsecond
		bob := w.user("bob")
		a, b := w.client(bob, "a"), w.client(bob, "b")
		m := w.mapping(bob, a, b, 80)
		w.do("POST", path("mappings", m, "disable"), nil).want(200)
		log := w.do("GET", "/api/v1/events?limit=500", nil).want(200).Body["items"].([]any)
		where := func(is func(e, meta map[string]any) bool) (positions []int64) {
			for _, item := range log {
				e := item.(map[string]any)
				if is(e, e["meta"].(map[string]any)) {
					positions = append(positions, int64(e["position"].(float64)))
				}
			}
			return positions
		}
		at := url.QueryEscape(between.UTC().Format(time.RFC3339Nano))
		after := func(e, _ map[string]any) bool {
			recorded, err := time.Parse(time.RFC3339Nano, e["recorded"].(string))
			return err == nil && !recorded.Before(between)
		}
		for query, is := range map[string]func(e, meta map[string]any) bool{
			"":                                    func(_, _ map[string]any) bool { return true },
			"actor=key:admin":                     func(_, meta map[string]any) bool { return meta["actor"] == "key:admin" },
			"actor=key:other":                     func(_, _ map[string]any) bool { return false },
			"subject=mapping-" + formatID(m):      func(e, _ map[string]any) bool { return e["stream"] == "mapping-"+formatID(m) },
			"type=client_created,mapping_created": func(e, _ map[string]any) bool { return e["name"] == "client_created" || e["name"] == "mapping_created" },
			"owner=" + formatID(ann):              func(e, _ map[string]any) bool { return e["owner"] == float64(ann) },
			"from=" + at:                          after,
			"to=" + at:                            func(e, meta map[string]any) bool { return !after(e, meta) },
			"from=" + at + "&to=" + at:            func(_, _ map[string]any) bool { return false },
		} {
			want := where(is)
			if got := w.all(query); !slices.Equal(got, want) {
				t.Errorf("%s: positions %v, want %v", query, got, want)
			}
			lines := w.do("GET", "/api/v1/audit?format=ndjson&"+query, nil).want(200)
			if got := lines.lines(); !slices.Equal(got, want) || lines.Header.Get("X-Total-Count") != fmt.Sprint(len(want)) {
				t.Errorf("%s as NDJSON: positions %v, total %s, want %v", query, got, lines.Header.Get("X-Total-Count"), want)
			}
			slices.Reverse(want)
			if got := w.all("order=newest&" + query); !slices.Equal(got, want) {
				t.Errorf("%s, newest first: positions %v, want %v", query, got, want)
			}
			if got := w.do("GET", "/api/v1/audit?order=newest&"+query, nil, "Accept", "application/x-ndjson").want(200).lines(); !slices.Equal(got, want) {
				t.Errorf("%s as NDJSON, newest first: positions %v, want %v", query, got, want)
			}
		}
		w.do("GET", "/api/v1/audit?subject=nonsense", nil).fault(422, "invalid", "query.subject")
		w.do("GET", "/api/v1/audit?type=mapping_exploded", nil).fault(422, "invalid", "query.type")
		w.do("GET", "/api/v1/audit?from=yesterday", nil).fault(422, "invalid", "query.from")
		w.do("GET", "/api/v1/audit?colour=red", nil).fault(422, "invalid", "query.colour")
	})
}

func TestAuditShowsNoSecret(t *testing.T) {
	w := newWorld(t)
	w.do("POST", "/api/v1/users", fields{"username": "ann", "email": "a@b.c", "password": "correct horse"}).want(201)
	for _, query := range []string{"", "&format=ndjson"} {
		if got := w.do("GET", "/api/v1/audit?type=user_password_set"+query, nil).want(200); strings.Contains(got.Text, "argon2") || !strings.Contains(got.Text, "[redacted]") {
			t.Errorf("shown: %s", got.Text)
		}
	}
}

// impatiently makes the limits of a server short, so that an answer which they would end
// ends soon.
func impatiently(server *http.Server) {
	server.ReadTimeout, server.WriteTimeout = time.Second, time.Second
}

// served runs the world behind a real server.
func (w *world) served(change ...func(*http.Server)) (base string, shutdown func(context.Context) error) {
	w.t.Helper()
	server := httpapi.NewServer(w.handler, slog.New(slog.DiscardHandler))
	for _, c := range change {
		c(server)
	}
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(on) // ErrServerClosed
	}()
	w.t.Cleanup(func() {
		_ = server.Close() // a second time, when the test has shut it down
		<-done
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + on.Addr().String(), server.Shutdown
}

// live is an open stream of events.
type live struct {
	t     *testing.T
	body  *bufio.Scanner
	id    string // of the last event, as a browser keeps it
	event string // what it is called, "" = a message
}

func follow(t *testing.T, base, query string, header ...string) *live {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	r, err := http.NewRequestWithContext(ctx, "GET", base+"/api/v1/events/stream?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+apiKey)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	t.Cleanup(cancel)
	return followRequest(t, r)
}

func followRequest(t *testing.T, r *http.Request) *live {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("stream: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &live{t: t, body: bufio.NewScanner(resp.Body)}
}

// next waits for an event with data and gives its position and name.
func (l *live) next() (position int64, name string) {
	l.t.Helper()
	for l.body.Scan() {
		line := l.body.Text()
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			l.id = id
		}
		if line == "" {
			l.event = ""
		}
		if event, ok := strings.CutPrefix(line, "event: "); ok {
			l.event = event
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var e struct {
				Position int64
				Name     string
			}
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				l.t.Fatal(err)
			}
			if fmt.Sprint(e.Position) != l.id {
				l.t.Errorf("event %d has the id %s", e.Position, l.id)
			}
			return e.Position, e.Name
		}
	}
	return 0, "" // ended
}

// beat waits for a sign of life.
func (l *live) beat() bool {
	for l.body.Scan() {
		if id, ok := strings.CutPrefix(l.body.Text(), "id: "); ok {
			l.id = id
			return true
		}
	}
	return false
}

func TestLiveStreamShowsWhatHappensAndResumes(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		base, _ := w.served()
		ann := w.user("ann")
		l := follow(t, base, "type=client_created")
		if !l.beat() {
			t.Fatal("no beginning")
		}
		started := l.id
		first := w.client(ann, "first")
		if position, name := l.next(); name != "client_created" || position == 0 {
			t.Fatalf("the first event is %d %s", position, name)
		}
		w.user("bob") // not wanted; moves the position all the same
		before := l.id
		for l.id == before {
			if !l.beat() {
				t.Fatal("the position does not move over what was not wanted")
			}
		}
		// Events while nobody follows are there for who comes back.
		missed := follow(t, base, "type=client_created", "Last-Event-ID", started)
		w.client(ann, "second")
		for i, want := range []string{"first", "second"} {
			position, _ := missed.next()
			e := w.do("GET", fmt.Sprintf("/api/v1/events?limit=1&after=%d", position-1), nil).want(200)
			if !strings.Contains(e.Text, want) {
				t.Errorf("event %d after coming back is %s, want the %s client %d", i, e.Text, want, first)
			}
		}
		whole := follow(t, base, "after=0")
		for want := int64(1); want <= 6; want++ {
			if position, _ := whole.next(); position != want {
				t.Fatalf("the whole log: %d, want %d", position, want)
			}
		}
	})
}

func TestLiveStreamOutlastsTheServersLimitsAndEndsWithIt(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.Heartbeat = 100 * time.Millisecond })
	base, shutdown := w.served(impatiently)
	l := follow(t, base, "")
	for range 15 { // 1.5 s, with limits of a second
		if !l.beat() {
			t.Fatal("the stream ended by the limits of a request")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := shutdown(ctx); err != nil {
		t.Errorf("a shutdown does not end the stream: %v", err)
	}
	if position, _ := l.next(); position != 0 {
		t.Error("the stream goes on")
	}
}

// A log that was restored to an older state, or is another one, must not make its
// readers wait for ever.
func TestALiveStreamBeyondTheLogSaysSoAndBeginsAtItsEnd(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		base, _ := w.served()
		ann := w.user("ann")
		for _, from := range []struct{ query, last string }{{"", "4000"}, {"after=4000", ""}, {"", "9223372036854775807"}} {
			l := follow(t, base, from.query, "Last-Event-ID", from.last)
			if position, name := l.next(); position == 0 || position > 100 || name != "" || l.event != "log_behind" {
				t.Fatalf("the first that comes is %d %q, called %q, want what says where the log ends", position, name, l.event)
			}
			w.client(ann, "c")
			if position, name := l.next(); name != "client_created" || l.event != "" {
				t.Errorf("then comes %d %s, called %q, want the creation of the client", position, name, l.event)
			}
		}
		l := follow(t, base, "", "Last-Event-ID", "2")
		if position, name := l.next(); position != 3 || name != "client_created" || l.event != "" {
			t.Errorf("behind a position that the log has: %d %s, called %q", position, name, l.event)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t)
	base, _ := w.served()
	for range 16 {
		follow(t, base, "")
	}
	got := w.do("GET", "/api/v1/events/stream", nil)
	got.fault(429, "too_many_requests")
	if got.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.do("GET", "/api/v1/events/stream?after=x", nil).fault(422, "invalid", "query.after")
	w.do("GET", "/api/v1/events/stream", nil, "Last-Event-ID", "x").fault(422, "invalid", "header.Last-Event-ID")
}

func TestAUserAuditsTheirOwnAccount(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.person("ann", "user"), w.person("bob", "user")
	w.client(ann.id, "of-ann") // by an admin
	w.client(bob.id, "of-bob")
	for _, query := range []string{"", "?format=ndjson", "?owner=" + formatID(ann.id)} {
		got := ann.do("GET", "/api/v1/audit"+query, nil).want(200)
		if !strings.Contains(got.Text, "of-ann") || strings.Contains(got.Text, "of-bob") {
			t.Errorf("ann sees %s", got.Text)
		}
	}
	ann.do("GET", "/api/v1/audit?owner="+formatID(bob.id), nil).fault(422, "invalid", "query.owner")
	if got := ann.do("GET", "/api/v1/audit?subject=user-"+formatID(bob.id), nil).want(200); len(got.items("position")) != 0 {
		t.Errorf("ann sees bob's history: %s", got.Text)
	}
	if got := ann.do("GET", "/api/v1/events/stream?after=0", nil).want(200); strings.Contains(got.Text, "of-bob") || !strings.Contains(got.Text, "of-ann") {
		t.Errorf("ann follows %s", got.Text)
	}
}
