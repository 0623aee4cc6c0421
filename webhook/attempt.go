package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	attemptTimeout = 10 * time.Second // for name, connection, request and answer together
	dialTimeout    = 5 * time.Second
	answerMost     = 64 << 10 // bytes of an answer's body that are read, so that the connection can be used again
	headersMost    = 16 << 10
	retryAfterMost = 24 * time.Hour
)

// sender makes attempts.
type sender struct {
	client   *http.Client
	keys     Keys
	timeout  time.Duration
	insecure bool // http is allowed
	agent    string
}

func newSender(o Options) *sender {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: o.Networks.Guard}
	return &sender{keys: o.Keys, timeout: o.Timeout, insecure: o.AllowHTTP, agent: "Tunnox-Webhook/" + o.Version, client: &http.Client{
		// A redirect would be dialled with the same guard. But it could turn a POST
		// into a GET at another place, so the owner must give the right address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // no proxy from the environment: it would dial addresses that the guard forbids
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    dialTimeout,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           100,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: headersMost,
			DisableCompression:     true, // an answer that is never unpacked cannot be a decompression bomb
		},
	}}
}

func (s *sender) close() { s.client.CloseIdleConnections() }

// attempt is the result of sending a message once.
type attempt struct {
	code  int           // 0 = no answer
	kind  string        // for the metrics; "" = delivered
	err   string        // why the attempt failed
	after time.Duration // the receiver asked for this pause
	took  time.Duration
}

func (a attempt) ok() bool { return a.err == "" }

// send makes one attempt. Nothing of the answer's body is stored: it would show the
// content of the address to the person who named the address.
func (s *sender) send(ctx context.Context, e Endpoint, message string, now time.Time, body []byte) attempt {
	began := time.Now()
	a := s.post(ctx, e, message, now, body)
	a.took = time.Since(began)
	return a
}

func (s *sender) post(ctx context.Context, e Endpoint, message string, now time.Time, body []byte) attempt {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return attempt{kind: "unreachable", err: "the URL cannot be used"}
	}
	if r.URL.Scheme != "https" && !s.insecure {
		return attempt{kind: "closed", err: "the URL is not https, which this server requires (--webhook-http)"}
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {s.agent},
		// The spelling is that of the specification.
		"Webhook-Id": {message}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)},
		"Webhook-Signature": {s.keys.sign(e.ID, e.Generations(now), message, now, body)},
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return s.unreached(err)
	}
	// The body is not used. Reading a little of it lets the connection be used again.
	// With 101 the body is the connection itself, which no context ends.
	if answer.StatusCode != http.StatusSwitchingProtocols {
		_, _ = io.CopyN(io.Discard, answer.Body, answerMost)
	}
	_ = answer.Body.Close()
	return answered(answer, now)
}

func answered(r *http.Response, now time.Time) attempt {
	a := attempt{code: r.StatusCode}
	switch {
	case r.StatusCode >= 200 && r.StatusCode < 300:
		return a
	case r.StatusCode >= 300 && r.StatusCode < 400:
		a.err = fmt.Sprintf("the receiver answered %d, a redirect, which is not followed: give the webhook the right address", r.StatusCode)
	default:
		a.err = strings.TrimSpace(fmt.Sprintf("the receiver answered %d %s", r.StatusCode, http.StatusText(r.StatusCode)))
	}
	a.kind = "refused"
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable {
		a.after = retryAfter(r.Header.Get("Retry-After"), now)
	}
	return a
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3).
func retryAfter(text string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		d = time.Duration(min(max(n, 0), int64(retryAfterMost/time.Second))) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), retryAfterMost)
}

// unreached says why there was no answer. The words are the same whatever is at the
// address: the owner of the webhook needs the reason, and must not learn anything about
// closed networks.
func (s *sender) unreached(err error) attempt {
	a := attempt{kind: "unreachable"}
	var resolve *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var timeout net.Error
	switch {
	case errors.As(err, new(errClosed)):
		a.kind, a.err = "closed", errClosed{}.Error()
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		a.err = fmt.Sprintf("the receiver did not answer within %v", s.timeout)
	case errors.As(err, &resolve):
		a.err = "the receiver's name could not be resolved"
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &name):
		a.err = "the receiver's certificate is not trusted"
	case errors.As(err, &op) && op.Op == "dial":
		a.err = "no connection to the receiver could be made"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		a.err = "the receiver closed the connection without an answer"
	default:
		a.err = "the receiver's answer was not HTTP"
	}
	return a
}
