package ingress

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// exchange is one request and its answer, as they are counted and logged.
type exchange struct {
	http.ResponseWriter
	server *Server
	in     *http.Request
	began  time.Time
	site   Site
	host   string // in its one form; "" when the request names none
	own    bool   // the host belongs to no mapping; who answers for it counts it
	user   string // who the visitor has proved to be
	status int    // 0 = there was no answer
	sent   atomic.Int64
	got    atomic.Int64
	whole  bool // the answer was not cut short
}

func (s *Server) begin(w http.ResponseWriter, in *http.Request) *exchange {
	e := &exchange{ResponseWriter: w, server: s, in: in, began: time.Now()}
	if in.Body != nil && in.Body != http.NoBody {
		in.Body = &countedBody{in.Body, &e.got}
	}
	return e
}

// Unwrap is for http.ResponseController.
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// WriteHeader notes the status. Interim answers are none (traefik#9926).
func (e *exchange) WriteHeader(status int) {
	if e.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		e.status = status
		e.tellHTTP3()
	}
	e.ResponseWriter.WriteHeader(status)
}

// tellHTTP3 tells a visitor over TLS of HTTP/3, unless the service says where else it is.
func (e *exchange) tellHTTP3() {
	if e.server.config.AltSvc == "" || e.in.ProtoMajor >= 3 {
		return
	}
	if _, secure := serverName(e.in); secure && e.Header().Get("Alt-Svc") == "" {
		e.Header().Set("Alt-Svc", e.server.config.AltSvc)
	}
}

// Write implements io.Writer.
func (e *exchange) Write(b []byte) (int, error) {
	if e.status == 0 {
		e.status = http.StatusOK
		e.tellHTTP3()
	}
	n, err := e.ResponseWriter.Write(b)
	e.sent.Add(int64(n))
	return n, err
}

// end counts and logs the exchange; it is deferred, so that it is called after a panic
// too, with which an answer is cut short.
func (e *exchange) end() {
	took := time.Since(e.began)
	if !e.own {
		e.server.config.Metrics.count(e.site.Mapping, e.status, e.whole, took)
	}
	if log := e.server.config.AccessLog; log != nil {
		log.add(Entry{Time: e.began.UTC(), Visitor: visitorOf(e.in, e.server.config.Trusted).String(), Host: e.host, Mapping: e.site.Mapping,
			User: e.user, Method: e.in.Method, Path: e.in.URL.EscapedPath(), Protocol: e.in.Proto, Status: e.status, Whole: e.whole,
			Error: e.Header().Get(reasonHeader), Received: e.got.Load(), Sent: e.sent.Load(), Seconds: took.Seconds(), UserAgent: e.in.UserAgent()})
	}
}

// countedBody counts what a visitor sends.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
