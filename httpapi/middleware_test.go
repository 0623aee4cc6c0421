package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

// lockedBuffer takes log lines of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// panicking is an executor that is broken beyond words.
type panicking struct{ *memoryLog }

func (panicking) Submit(context.Context, domain.Submission) (domain.Receipt, error) {
	panic("index out of range")
}

func TestPanicIsOneRequestsEnd(t *testing.T) {
	var lines lockedBuffer
	w := newWorld(t, func(c *httpapi.Config) {
		c.Executor = panicking{c.Executor.(*memoryLog)}
		c.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	})
	a := w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}, "X-Request-Id", "boom").fault(500, "internal")
	if strings.Contains(a.Text, "index") {
		t.Errorf("the answer shows the panic: %s", a.Text)
	}
	log := lines.String()
	if !strings.Contains(log, "index out of range") || !strings.Contains(log, "request=boom") || strings.Contains(log, "correct horse") {
		t.Errorf("the log is %s", log)
	}
	w.do("GET", path("users"), nil).want(200)
}

func TestLogHasNoLinePerRequestAtInfoAndNoSecret(t *testing.T) {
	var info, debug lockedBuffer
	w := newWorld(t, func(c *httpapi.Config) { c.Logger = slog.New(slog.NewTextHandler(&info, nil)) })
	w.user("ann")
	w.do("GET", path("nothing"), nil).want(404)
	if info.String() != "" {
		t.Errorf("info says %s", info.String())
	}
	w = newWorld(t, func(c *httpapi.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&debug, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "password": "correct horse"}).want(201)
	got := debug.String()
	if !strings.Contains(got, "route=/api/v1/users status=201") || !strings.Contains(got, "actor=key:admin") {
		t.Errorf("debug says %s", got)
	}
	if strings.Contains(got, apiKey) || strings.Contains(got, "correct horse") {
		t.Errorf("debug shows a secret: %s", got)
	}
}

func TestMetricsCountByRoute(t *testing.T) {
	metrics := httpapi.NewMetrics()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics)
	w := newWorld(t, func(c *httpapi.Config) { c.Metrics = metrics })
	user := w.user("ann")
	w.do("GET", path("users", user), nil).want(200)
	w.do("GET", path("users", 999), nil).want(404)
	for i := range 20 {
		w.do("GET", path("nothing", i), nil).want(404)
		w.do(fmt.Sprint("METHOD", i), path("users"), nil).want(405)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tunnox_api_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"GET /api/v1/users/{id} 200": 1,
		"GET /api/v1/users/{id} 404": 1,
		"GET unmatched 404":          20,
		"POST /api/v1/users 201":     1,
		"other unmatched 405":        20,
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestReadyNamesWhatFailed(t *testing.T) {
	var mu sync.Mutex
	failure := errors.New("connection refused to 10.0.0.7")
	w := newWorld(t, func(c *httpapi.Config) {
		c.Checks = map[string]func(context.Context) error{
			"store": func(context.Context) error { return nil },
			"redis": func(context.Context) error { mu.Lock(); defer mu.Unlock(); return failure },
		}
	})
	a := w.send(w.request("GET", "/ready", nil)).want(503)
	if a.Text != `{"status":"unready","checks":{"redis":"failed","store":"ok"}}`+"\n" {
		t.Errorf("unready says %s", a.Text)
	}
	mu.Lock()
	failure = nil
	mu.Unlock()
	w.send(w.request("GET", "/ready", nil)).want(200).has(fields{"status": "ready"})
	w.send(w.request("GET", "/health", nil)).want(200).has(fields{"status": "ok"})
}

// What a process goes on without is shown and takes nobody's work away, also when
// it does not answer at all.
func TestReadyStaysReadyWithoutWhatItGoesOnWithout(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) {
		c.Checks = map[string]func(context.Context) error{"store": func(context.Context) error { return nil }}
		c.Needs = map[string]func(context.Context) error{
			"redis": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			"other": func(context.Context) error { return nil },
		}
	})
	a := w.send(w.request("GET", "/ready", nil)).want(200)
	if a.Text != `{"status":"ready","checks":{"other":"ok","redis":"degraded","store":"ok"}}`+"\n" {
		t.Errorf("it says %s", a.Text)
	}
}

func TestCORSIsForNamedOrigins(t *testing.T) {
	preflight := []string{"Origin", "https://ui.example.org", "Access-Control-Request-Method", "PUT"}
	w := newWorld(t)
	if a := w.send(w.request("OPTIONS", path("users"), nil, preflight...)); a.Status != 401 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without configuration: %d %v", a.Status, a.Header)
	}
	w = newWorld(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"https://ui.example.org"} })
	a := w.send(w.request("OPTIONS", path("users"), nil, preflight...)).want(204)
	if a.Header.Get("Access-Control-Allow-Origin") != "https://ui.example.org" || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight answer %v", a.Header)
	}
	if a := w.do("GET", path("users"), nil, "Origin", "https://ui.example.org").want(200); !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "X-Position") {
		t.Errorf("answer %v", a.Header)
	}
	if a := w.do("GET", path("users"), nil, "Origin", "https://evil.example.org").want(200); a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
		t.Errorf("answer to another origin %v", a.Header)
	}
}

func TestAnswersCarrySecurityHeaders(t *testing.T) {
	w := newWorld(t)
	for _, a := range []*answer{w.do("GET", path("users"), nil), w.do("GET", path("nothing"), nil), w.send(w.request("GET", "/docs", nil))} {
		if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("X-Frame-Options") != "DENY" || a.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %v", a.call, a.Header)
		}
	}
	if got := w.do("POST", path("users"), fields{"username": "a", "email": "a@a"}).Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("an answer that may hold a credential has Cache-Control %q", got)
	}
}

// TestServerBoundsSlowAndBrokenPeers speaks to a real server, which has what no
// handler can have: deadlines and a bound for headers.
func TestServerBoundsSlowAndBrokenPeers(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httpapi.NewServer(w.handler, slog.New(slog.DiscardHandler))
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 {
		t.Error("a time-out is missing")
	}
	server.ReadHeaderTimeout = 200 * time.Millisecond
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends with ErrServerClosed
	t.Cleanup(func() { server.Close(); serving.Wait() })

	dial := func(text string) *http.Response {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, text) // the server may close early, which is the point
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return nil
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	if res := dial("GET /api/v1/users HTTP/1.1\r\nHost: x\r\nX-Slow: "); res != nil && res.StatusCode != 408 {
		t.Errorf("a header that never ends is answered with %d", res.StatusCode)
	}
	if res := dial("GET /health HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"); res == nil || res.StatusCode != 431 {
		t.Errorf("64 KiB of headers: %v", res)
	}
	if res := dial("\x16\x03\x01\x02\x00garbage\r\n\r\n"); res == nil || res.StatusCode != 400 {
		t.Errorf("garbage: %v", res)
	}
	post := "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + apiKey + "\r\nContent-Length: "
	if res := dial(post + "2000000\r\n\r\n" + strings.Repeat(" ", 1<<20+1)); res == nil || res.StatusCode != 413 {
		t.Errorf("a body beyond the bound: %v", res)
	}
	if res := dial("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); res == nil || res.StatusCode != 200 {
		t.Errorf("the server died: %v", res)
	}
}
