package ingress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// proxy carries one request to the service and its answer back.
func (s *Server) proxy(w http.ResponseWriter, in *http.Request, site Site) {
	out := &answer{ResponseWriter: w, cookie: site.cookie}
	defer out.stop()
	// The service may answer before it has read the whole request. Without this,
	// net/http would read the rest of the request before it passes the answer on.
	_ = http.NewResponseController(w).EnableFullDuplex()

	proxy := httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = SchemeHTTP
			if site.Scheme == SchemeHTTPS {
				r.Out.URL.Scheme = SchemeHTTPS
			}
			r.Out.URL.Host = "service" // one per transport, which dials the site's
			// Unchanged: the proxy drops what net/url does not understand.
			r.Out.URL.RawQuery, r.Out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery
			r.Out.Host = in.Host
			setForwarded(r.Out.Header, in, s.config.Trusted)
			site.rewrite(r.Out)
			r.Out.Header.Del("Upgrade")
			r.Out.Header.Del("Http2-Settings")
			if r.Out.Header.Get("Connection") != "" {
				r.Out.Header.Del("Connection")
			}
			if in.ContentLength == 0 && in.Header.Get("Content-Length") == "0" {
				// A length of 0 that was sent is sent on, whatever the method.
				r.Out.Body, r.Out.TransferEncoding = http.NoBody, []string{"identity"}
			}
		},
		Transport:     s.sites.transport(site, in.ContentLength == 0 && idempotent(in.Method)),
		FlushInterval: -1, // each piece as it comes
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusSwitchingProtocols {
				return errors.New("the service switched protocols without being asked")
			}
			site.Response.apply(res.Header)
			out.length = res.ContentLength
			res.Body = &answerBody{ReadCloser: res.Body, answer: out}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			if in.Context().Err() != nil {
				panic(http.ErrAbortHandler) // nobody is there to read a page
			}
			s.fail(w, in, err)
		},
		ErrorLog: s.http.ErrorLog,
	}
	if in.ProtoMajor == 1 {
		proxy.BufferPool = pieces{}
	}
	ctx := context.WithValue(in.Context(), visitorAddress{}, in.RemoteAddr)
	proxy.ServeHTTP(out, in.WithContext(ctx))
}

// pieces keeps the buffers through which answers are copied. It is only for visitors
// with HTTP/1: over HTTP/2 a Write that ends because its stream was closed may leave the
// buffer to the goroutine that still sends it, and the next user of the buffer would
// write into another visitor's answer.
type pieces struct{}

const pieceSize = 32 << 10

var piecePool = sync.Pool{New: func() any { return new([pieceSize]byte) }}

func (pieces) Get() []byte { return piecePool.Get().(*[pieceSize]byte)[:] }

func (pieces) Put(b []byte) { piecePool.Put((*[pieceSize]byte)(b)) }

// idempotent reports whether a request may be sent twice (RFC 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// answer adds nothing to the answer of the service. It sends the head when the body is
// slow to follow.
type answer struct {
	http.ResponseWriter
	length int64  // of the body, -1 = not known
	cookie string // that is set with it, "" = none

	mu    sync.Mutex
	timer *time.Timer
	begun bool // something has been written or flushed
}

// headWait is how long the head waits for the first piece of the body, so that a small
// answer takes one packet.
const headWait = 5 * time.Millisecond

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader keeps net/http from adding a date and a guessed type.
func (a *answer) WriteHeader(status int) {
	if status >= 200 {
		h := a.Header()
		for _, name := range []string{"Date", "Content-Type"} {
			if _, ok := h[name]; !ok {
				h[name] = nil
			}
		}
		if a.cookie != "" { // not with an interim answer, whose headers do not stay
			h.Add("Set-Cookie", a.cookie)
			a.cookie = ""
		}
	}
	a.ResponseWriter.WriteHeader(status)
	if status < 200 {
		return
	}
	switch {
	case a.length < 0:
		a.Flush()
		return
	case a.length == 0:
		return // the end follows at once: over HTTP/2 it belongs into the head, see FlushError
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(headWait, func() { a.head() })
}

// head sends the head if nothing else has.
func (a *answer) head() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		a.begun = true
		_ = http.NewResponseController(a.ResponseWriter).Flush()
	}
}

// Write writes a piece of the body.
func (a *answer) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// FlushError sends what was written. The head of an answer without a body is sent with
// the end of the answer. gRPC recognises an error by a head that ends its stream, and
// ReverseProxy flushes from a timer, which may come before the end. The head of another
// answer of known length waits for the first piece, see headWait.
func (a *answer) FlushError() error {
	if a.length == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.length > 0 && !a.begun {
		return nil
	}
	a.begun = true
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush is FlushError for who has no use for the error.
func (a *answer) Flush() { _ = a.FlushError() }

// stop ends the timer. The handler must not return before that.
func (a *answer) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = true
	if a.timer != nil {
		a.timer.Stop()
	}
}

// answerBody sends the head before it reports that the body was cut short, so that the
// visitor sees the status, and then the end of the connection.
type answerBody struct {
	io.ReadCloser
	answer *answer
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.answer.head()
	}
	return n, err
}
