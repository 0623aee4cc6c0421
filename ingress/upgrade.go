package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// upgradeTimeout bounds the time until the service has answered an upgrade.
const upgradeTimeout = 30 * time.Second

// upgrade carries a WebSocket. httputil loses bytes that come before the two ends are
// joined, and passes on headers of a hop (golang.org/issue/80875). So this is our own
// code: one request, one answer, and then bytes both ways, each direction until its own
// end.
func (s *Server) upgrade(w *exchange, in *http.Request, site Site) {
	life := in.Context()
	if site.Scheme == SchemeH2C {
		noUpgrade.write(w, in)
		return
	}
	service, err := site.Dial(life, in.RemoteAddr)
	if err != nil {
		s.fail(w, in, err)
		return
	}
	if site.Scheme == SchemeHTTPS {
		config := site.tls()
		config.NextProtos = []string{"http/1.1"}
		service = tls.Client(service, config)
	}
	stop := context.AfterFunc(life, func() { abort(service) })
	defer stop()
	defer context.AfterFunc(s.ctx, func() { abort(service) })()

	_ = service.SetDeadline(time.Now().Add(upgradeTimeout))
	fromService := bufio.NewReader(service)
	res, err := ask(service, fromService, upgradeRequest(in, site, s)) //nolint:bodyclose // a 101 has none, and refuseUpgrade closes others
	if err != nil {
		abort(service)
		s.fail(w, in, err)
		return
	}
	_ = service.SetDeadline(time.Time{})
	site.Response.apply(res.Header)
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = service.Close() }()
		refuseUpgrade(w, res, site.cookie)
		return
	}
	if !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		abort(service)
		s.fail(w, in, errors.New("the service switched to another protocol than was asked for"))
		return
	}
	visitor, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		abort(service)
		s.fail(w, in, fmt.Errorf("take over the connection: %w", err))
		return
	}
	s.upgraded.Add(1)
	defer s.upgraded.Done()
	if v, ok := in.Context().Value(visitorKey{}).(*visitorConn); ok {
		v.framing.release()
	}
	defer context.AfterFunc(s.ctx, func() { abort(visitor) })()
	_ = visitor.SetDeadline(time.Time{})
	if site.cookie != "" {
		res.Header.Add("Set-Cookie", site.cookie)
	}
	w.status = http.StatusSwitchingProtocols
	if err := writeSwitch(visitor, res); err != nil {
		abort(visitor)
		abort(service)
		return
	}
	received, sent := carry(visitor, buffered.Reader, service, fromService)
	w.got.Store(received)
	w.sent.Store(sent)
}

// upgradeRequest makes the request to the service.
func upgradeRequest(in *http.Request, site Site, s *Server) *http.Request {
	out := in.Clone(context.Background())
	out.Body, out.ContentLength, out.TransferEncoding = nil, 0, nil
	removeHopByHop(out.Header)
	out.Header.Del("Http2-Settings")
	out.Header.Set("Connection", "Upgrade")
	out.Header.Set("Upgrade", "websocket")
	setForwarded(out.Header, in, s.config.Trusted)
	site.rewrite(out)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // net/http would put its own
	}
	return out
}

// ask sends the request and reads the head of the answer. It skips interim answers.
func ask(service net.Conn, answers *bufio.Reader, out *http.Request) (*http.Response, error) {
	if err := out.Write(service); err != nil {
		return nil, fmt.Errorf("ask for an upgrade: %w", err)
	}
	for range 10 {
		res, err := http.ReadResponse(answers, out)
		if err != nil {
			return nil, fmt.Errorf("read the answer to an upgrade: %w", err)
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, nil
		}
	}
	return nil, errors.New("too many interim answers to an upgrade")
}

// refuseUpgrade passes on an ordinary answer of the service.
func refuseUpgrade(w http.ResponseWriter, res *http.Response, cookie string) {
	defer func() { _ = res.Body.Close() }()
	removeHopByHop(res.Header)
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	out := &answer{ResponseWriter: w, length: -1, cookie: cookie}
	out.WriteHeader(res.StatusCode)
	if _, err := io.Copy(out, res.Body); err != nil {
		panic(http.ErrAbortHandler) // cut short there, cut short here
	}
}

// writeSwitch writes the service's 101 with its own headers.
func writeSwitch(visitor net.Conn, res *http.Response) error {
	removeHopByHop(res.Header)
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 101 %s\r\n", http.StatusText(http.StatusSwitchingProtocols))
	_ = res.Header.Write(&b) // a Builder takes everything
	b.WriteString("\r\n")
	_, err := io.WriteString(visitor, b.String())
	return err
}

// carry moves bytes both ways until both directions have ended. Bytes that were read
// ahead go first. If one direction fails, both end.
func carry(visitor net.Conn, fromVisitor io.Reader, service net.Conn, fromService io.Reader) (received, sent int64) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		received = move(service, fromVisitor, visitor)
	}()
	sent = move(visitor, fromService, service)
	<-over
	_ = visitor.Close()
	_ = service.Close()
	return received, sent
}

func move(to net.Conn, from io.Reader, source net.Conn) (n int64) {
	n, err := io.Copy(to, from)
	if err == nil {
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			err = half.CloseWrite()
		}
	}
	if err != nil {
		abort(to)
		abort(source)
	}
	return n
}

// abort ends a connection so that the peer does not take it for a proper end.
func abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Reset() error }:
		_ = c.Reset()
	case *visitorConn:
		abort(c.Conn)
	case interface{ SetLinger(sec int) error }: // a socket, also one that a proxy in front announces
		_ = c.SetLinger(0)
	case *tls.Conn:
		abort(c.NetConn())
	}
	_ = c.Close()
}

// hopByHop are the headers that end at each hop (RFC 9110, 7.6.1).
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func removeHopByHop(h http.Header) {
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}
