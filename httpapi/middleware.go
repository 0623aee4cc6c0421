package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// track holds facts about a request beside its parameters. It is made once and travels
// in the context.
type track struct {
	id       string // X-Request-Id
	source   string // address it came from, with its port where that is known
	method   string
	path     string
	identity Identity
}

type trackKey struct{}

func tracked(ctx context.Context) *track {
	if t, ok := ctx.Value(trackKey{}).(*track); ok {
		return t
	}
	return &track{}
}

const headerRequestID = "X-Request-Id"

// requestID uses the caller's id if it may stand in a log line, else it draws one.
func requestID(r *http.Request) string {
	id := r.Header.Get(headerRequestID)
	if id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}) {
		return id
	}
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// recorder notes the status and size of an answer. Unwrap keeps deadlines and flushing
// working.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP implements [http.Handler]: it tracks, recovers, measures and logs,
// and routes to the operations.
func (a *api) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	a.withoutSlash(r)
	t := &track{id: requestID(r), source: a.source(r), method: r.Method, path: r.URL.Path}
	r = r.WithContext(context.WithValue(r.Context(), trackKey{}, t))
	w := &recorder{ResponseWriter: rw}
	w.Header().Set(headerRequestID, t.id)
	secure(w.Header(), r.Method)
	defer func() {
		if v := recover(); v != nil {
			a.recovered(w, t, v)
		}
		route := "unmatched"
		if r.Pattern != "" {
			route = r.Pattern[strings.IndexByte(r.Pattern, '/'):]
		}
		took := time.Since(start)
		a.config.Metrics.observe(route, r.Method, w.status, took)
		a.logger.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("request", t.id), slog.String("method", r.Method),
			slog.String("route", route), slog.Int("status", w.status), slog.Duration("took", took), slog.String("actor", t.identity.Actor))
	}()
	if a.cors(w, r) {
		return
	}
	if p := unfit(r); p != nil {
		writeProblem(w, t, p)
		return
	}
	readAsJSON(r)
	if _, pattern := a.mux.Handler(r); pattern == "" {
		a.unmatched(w, r, t)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// readAsJSON accepts the default of curl -d: the header of a form and a body of JSON.
// Nothing here reads forms. A hostile web page gains nothing, because browsers never
// send the key by themselves.
func readAsJSON(r *http.Request) {
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		r.Header.Set("Content-Type", "application/json")
	}
}

// recovered ends a request whose handler panicked. The process lives.
func (a *api) recovered(w *recorder, t *track, v any) {
	if v == http.ErrAbortHandler {
		panic(v)
	}
	a.logger.Error("handler panicked", "request", t.id, "method", t.method, "path", t.path, "panic", v, "stack", string(debug.Stack()))
	if w.status == 0 {
		writeProblem(w, t, problem(http.StatusInternalServerError, codeInternal, "The server failed. Its log has the details under the request id."))
	}
}

// unmatched answers 404 and 405 in place of the mux's plain text. Below the prefix of
// the API a caller without a key gets 401.
func (a *api) unmatched(w *recorder, r *http.Request, t *track) {
	if strings.HasPrefix(r.URL.Path, prefix+"/") {
		if _, err := a.authenticate(r.Context(), r.Header.Get("Authorization")); err != nil {
			writeProblem(w, t, a.unknown(t, w.Header()))
			return
		}
	}
	answer := &discard{header: http.Header{}}
	a.mux.ServeHTTP(answer, r)
	if answer.status == http.StatusMethodNotAllowed {
		w.Header()["Allow"] = answer.header["Allow"]
		writeProblem(w, t, problem(http.StatusMethodNotAllowed, codeMethodNotAllowed, "This path knows "+answer.header.Get("Allow")+"."))
		return
	}
	writeProblem(w, t, problem(http.StatusNotFound, codeRouteNotFound, "There is nothing at this path. The routes are described at /docs."))
}

// discard takes the mux's own answer, of which only status and headers matter.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, t *track, p *Problem) {
	p.RequestID, p.Instance = t.id, t.path
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	// The error is that of a write to a connection that is gone.
	_ = json.NewEncoder(w).Encode(p)
}

// secure sets the headers of every answer. A cache must ask before it gives an answer
// of the API again, because the answer belongs to the holder of the key. It must not
// keep the answer of a write, which may hold a secret.
func secure(h http.Header, method string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if method == http.MethodGet || method == http.MethodHead {
		h.Set("Cache-Control", "private, no-cache")
	} else {
		h.Set("Cache-Control", "no-store")
	}
}

// The headers that browsers of allowed origins may send and see.
const (
	corsAllowed = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID, Min-Position, X-Request-Id"
	corsExposed = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Position, X-Request-Id, X-Total-Count"
	corsMethods = "GET, HEAD, POST, PUT, DELETE"
)

// cors answers for origins of the configuration and reports whether the request
// was a preflight. There are no credentials to allow: keys are sent in a header.
func (a *api) cors(w http.ResponseWriter, r *http.Request) (done bool) {
	if len(a.config.CORSOrigins) == 0 {
		return false
	}
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !(slices.Contains(a.config.CORSOrigins, origin) || slices.Contains(a.config.CORSOrigins, "*")) {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", corsExposed)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", corsMethods)
	w.Header().Set("Access-Control-Allow-Headers", corsAllowed)
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
