package hosts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// raw is a service that keeps the exact bytes of each request's head and body, and plays
// an answer.
type raw struct {
	mu    sync.Mutex
	heads []string
	play  func(c *net.TCPConn, head string, in *bufio.Reader)
}

func (r *raw) serve(c *net.TCPConn) {
	in := bufio.NewReader(c)
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	r.mu.Lock()
	r.heads = append(r.heads, head.String())
	r.mu.Unlock()
	r.play(c, head.String(), in)
}

func (r *raw) said(t testing.TB) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.heads) == 0 {
		t.Fatal("the service was not asked")
	}
	return r.heads[len(r.heads)-1]
}

// playing answers with these bytes, and ends the connection.
func playing(answer string) func(*net.TCPConn, string, *bufio.Reader) {
	return func(c *net.TCPConn, _ string, _ *bufio.Reader) { _, _ = io.WriteString(c, answer) }
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

// rawSite publishes a raw service under a host, which the world's rawHost then is.
func (w *world) rawSite(r *raw) mapping {
	return w.publish(programs.Listen(w.t, r.serve).Port, nil)
}

// connect is a visitor's connection.
func (w *world) connect() *net.TCPConn {
	w.t.Helper()
	c, err := net.DialTimeout("tcp", w.address, limit)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	w.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// ask sends a request that is followed by FIN, and gives all of the answer.
func (w *world) ask(request string) (string, error) {
	w.t.Helper()
	c := w.connect()
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func (m mapping) name() string { return m.Host + "." + baseDomain }

func head(m mapping, first string, fields ...string) string {
	return first + " HTTP/1.1\r\nHost: " + m.name() + "\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

func field(head, name string) (values []string) {
	for _, line := range strings.Split(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// What field.md says of public HTTP hosts, over the tunnel, with raw sockets at both
// ends.
func TestRawExchanges(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, w *world) {
		service := &raw{}
		m := w.rawSite(service)
		service.play = playing(okAnswer)
		w.answers(m.URL, 200, "ok")
		for name, test := range map[string]func(*testing.T, *world, mapping, *raw){
			"A1 the end behind a request is no abort":    endBehindARequest,
			"A1 an abort ends the service's request":     abortEndsTheRequest,
			"A2 the query arrives as it is":              queryAsItIs,
			"A3 a service that wants no body":            noBodyWanted,
			"A3 early hints":                             earlyHints,
			"A4 an answer that is cut short":             cutShort,
			"A5 bodies without a length":                 bodyWithoutLength,
			"A7 WebSocket":                               webSocket,
			"A10 nothing is compressed or decompressed":  nothingCompressed,
			"A18 headers are the service's":              headersAsTheyAre,
			"A20 the service's errors are its own":       itsOwnErrors,
			"smuggling":                                  smuggling,
			"an answer before the upload ends":           answerBeforeTheEnd,
			"a large cookie":                             largeCookie,
			"X-Forwarded-For of a stranger is not taken": strangersForwarded,
		} {
			t.Run(name, func(t *testing.T) { test(t, w, m, service) })
		}
	})
}

func (w *world) must(t *testing.T, request string, want ...string) string {
	t.Helper()
	got, err := w.ask(request)
	if err != nil {
		t.Fatalf("the answer ends with %v behind %.300q", err, got)
	}
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("the visitor got %.500q, want %q in it", got, part)
		}
	}
	return got
}

func endBehindARequest(t *testing.T, w *world, m mapping, s *raw) {
	s.play = func(c *net.TCPConn, _ string, _ *bufio.Reader) {
		time.Sleep(300 * time.Millisecond) // the end arrives long before the answer
		_, _ = io.WriteString(c, okAnswer)
	}
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			if got, err := w.ask(head(m, "GET /")); err != nil || !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.HasSuffix(got, "ok") {
				t.Errorf("the visitor got %.200q, %v", got, err)
			}
		})
	}
	asking.Wait()
}

func abortEndsTheRequest(t *testing.T, w *world, m mapping, s *raw) {
	asked, over := make(chan struct{}), make(chan error, 1)
	s.play = func(c *net.TCPConn, _ string, in *bufio.Reader) {
		close(asked)
		_, err := in.ReadByte()
		over <- err
	}
	c := w.connect()
	_, _ = io.WriteString(c, head(m, "GET /"))
	<-asked
	_ = c.SetLinger(0)
	_ = c.Close()
	select {
	case err := <-over:
		if err == nil {
			t.Error("the service got a byte")
		}
	case <-time.After(limit):
		t.Error("the service does not hear of it")
	}
}

func queryAsItIs(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing(okAnswer)
	const target = "/p%2Fq;x=1?foo=bar;moo&x=%zz&y=a+b&&z"
	w.must(t, head(m, "GET "+target, "Connection: close"), "200 OK")
	if got := s.said(t); !strings.HasPrefix(got, "GET "+target+" HTTP/1.1\r\n") {
		t.Errorf("the service read %.200q", got)
	}
}

func noBodyWanted(t *testing.T, w *world, m mapping, s *raw) {
	for _, status := range []string{"401 Unauthorized", "201 Created"} {
		got := make(chan int64, 1)
		s.play = func(c *net.TCPConn, _ string, in *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = c.CloseWrite()
			n, _ := io.Copy(io.Discard, in)
			got <- n
		}
		c := w.connect()
		_, _ = io.WriteString(c, head(m, "POST /", "Content-Length: 10", "Expect: 100-continue"))
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 "+status[:3]) {
			t.Errorf("a visitor who asks first got %q, %v", answer, err)
		}
		_ = c.Close()
		if n := <-got; n != 0 {
			t.Errorf("%s: %d bytes of the body reached the service", status, n)
		}
	}
}

func earlyHints(t *testing.T, w *world, m mapping, s *raw) {
	hinted := make(chan struct{})
	s.play = func(c *net.TCPConn, _ string, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
		<-hinted // the visitor has it before there is an answer
		_, _ = io.WriteString(c, okAnswer)
	}
	c := w.connect()
	_, _ = io.WriteString(c, head(m, "GET /", "Connection: close"))
	in := bufio.NewReader(c)
	first, err := in.ReadString('\n')
	close(hinted)
	rest, _ := io.ReadAll(in)
	if err != nil || !strings.HasPrefix(first, "HTTP/1.1 103") || !strings.Contains(string(rest), "</a.css>") || !strings.Contains(string(rest), "HTTP/1.1 200 OK") {
		t.Errorf("the visitor got %q and %.300q, %v", first, rest, err)
	}
}

func cutShort(t *testing.T, w *world, m mapping, s *raw) {
	for _, tt := range []struct{ name, answer string }{
		{"nothing of a length", "HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n"},
		{"half of a length", "HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\nhalf"},
		{"chunks without an end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"},
	} {
		s.play = playing(tt.answer)
		c := w.connect()
		_, _ = io.WriteString(c, head(m, "GET /"))
		b, err := io.ReadAll(c)
		complete := strings.HasSuffix(string(b), "0\r\n\r\n")
		if !strings.HasPrefix(string(b), "HTTP/1.1 200 OK\r\n") || complete {
			t.Errorf("%s: the visitor got %q, %v", tt.name, b, err)
		}
	}
	// A body that lasts until the connection ends: only a reset tells that it was cut.
	s.play = func(c *net.TCPConn, _ string, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nhalf")
		time.Sleep(100 * time.Millisecond)
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	c := w.connect()
	_, _ = io.WriteString(c, head(m, "GET /"))
	b, err := io.ReadAll(c)
	if !strings.Contains(string(b), "half") || strings.HasSuffix(string(b), "0\r\n\r\n") {
		t.Errorf("without a length: the visitor got %q, %v", b, err)
	}
}

func bodyWithoutLength(t *testing.T, w *world, m mapping, s *raw) {
	got := make(chan string, 1)
	s.play = func(c *net.TCPConn, head string, in *bufio.Reader) {
		var body strings.Builder
		for strings.Contains(head, "chunked") {
			line, err := in.ReadString('\n')
			body.WriteString(line)
			if err != nil || line == "0\r\n" {
				break
			}
		}
		got <- body.String()
		_, _ = io.WriteString(c, okAnswer)
	}
	w.must(t, head(m, "PATCH /", "Transfer-Encoding: chunked", "Connection: close")+"4\r\npart\r\n0\r\n\r\n", "200 OK")
	if body := <-got; !strings.Contains(body, "part") || len(field(s.said(t), "Content-Length")) != 0 {
		t.Errorf("chunks: the service read %q and %q", s.said(t), body)
	}
	for _, tt := range []struct{ first, length, want string }{{"POST /", "0", "0"}, {"GET /", "", ""}} {
		fields := []string{"Connection: close"}
		if tt.length != "" {
			fields = append(fields, "Content-Length: "+tt.length)
		}
		w.must(t, head(m, tt.first, fields...), "200 OK")
		<-got
		if said := s.said(t); strings.Join(field(said, "Content-Length"), ",") != tt.want || len(field(said, "Transfer-Encoding")) != 0 {
			t.Errorf("%s with length %q: the service read %q", tt.first, tt.length, said)
		}
	}
}

// webSocket: after the switch a kilobyte and the end go in, and a megabyte comes out
// afterwards.
func webSocket(t *testing.T, w *world, m mapping, s *raw) {
	const big = 1 << 20
	got := make(chan int64, 1)
	s.play = func(c *net.TCPConn, _ string, in *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
		n, _ := io.Copy(io.Discard, in)
		got <- n
		_, _ = c.Write(make([]byte, big))
	}
	c := w.connect()
	_, _ = io.WriteString(c, head(m, "GET /ws?a=%zz", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")+"early")
	_, _ = c.Write(make([]byte, 1<<10))
	_ = c.CloseWrite()
	b, err := io.ReadAll(c)
	answer, body, _ := strings.Cut(string(b), "\r\n\r\n")
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 101") || len(body) != big+len("hello") {
		t.Errorf("the visitor got %q and %d bytes, %v", answer, len(body), err)
	}
	if n := <-got; n != 1<<10+int64(len("early")) {
		t.Errorf("the service got %d bytes", n)
	}
	if !strings.HasPrefix(s.said(t), "GET /ws?a=%zz HTTP/1.1") {
		t.Errorf("the service read %.100q", s.said(t))
	}
}

func nothingCompressed(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\nETag: \"x\"\r\nConnection: close\r\n\r\n\x1f\x8babc")
	w.must(t, head(m, "GET /", "Connection: close"), "\x1f\x8babc", "Content-Encoding: gzip", "Content-Length: 5", `"x"`)
	if enc := field(s.said(t), "Accept-Encoding"); len(enc) != 0 {
		t.Errorf("the service was told %q", enc)
	}
}

func headersAsTheyAre(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing("HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	got := w.must(t, head(m, "GET /", "Connection: close", "X-Empty-Too:"), "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "X-Empty:")
	for _, added := range []string{"Content-Type", "Date", "Server", "Via"} {
		if len(field(got, added)) > 0 {
			t.Errorf("%s was added: %q", added, got)
		}
	}
	if said := s.said(t); !strings.Contains(said, "X-Empty-Too:") || len(field(said, "User-Agent")) > 0 {
		t.Errorf("the service read %q", said)
	}
	s.play = playing("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nConnection: close\r\n\r\n")
	w.must(t, head(m, "HEAD /", "Connection: close"), "Content-Length: 1234")
	s.play = playing("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nConnection: close\r\n\r\n")
	w.must(t, head(m, "GET /", "Connection: close"), "304 Not Modified", `"x"`)
}

func itsOwnErrors(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmine")
	if got := w.must(t, head(m, "GET /", "Connection: close"), "502", "mine"); len(field(got, "Tunnox-Error")) > 0 {
		t.Errorf("the service's error carries our mark: %q", got)
	}
	none := mapping{Host: "nobody-has-this"}
	for accept, want := range map[string]string{"text/html": "<!doctype html>", "application/json": `"code":"no_such_host"`, "*/*": "Nothing is published"} {
		got := w.must(t, head(none, "GET /", "Accept: "+accept, "Connection: close"), "HTTP/1.1 404", want, "Tunnox-Error: no_such_host", "no-store")
		if strings.Contains(got, m.Host) {
			t.Errorf("the page gives away %q", got)
		}
	}
	s.play = func(c *net.TCPConn, _ string, _ *bufio.Reader) {} // ends without a word
	w.must(t, head(m, "POST /", "Content-Length: 0", "Connection: close"), "HTTP/1.1 502", "Tunnox-Error: service_broken")
}

// smuggling: what two servers could read in two ways reaches no service.
func smuggling(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing(okAnswer)
	s.mu.Lock()
	before := len(s.heads)
	s.mu.Unlock()
	host := "Host: " + m.name() + "\r\n"
	for name, request := range map[string]string{
		"a length and chunks": "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":         "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"a bare LF":           "GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n",
		"a space":             "GET / HTTP/1.1\r\n" + host + "Content-Length : 4\r\n\r\n",
		"a folded line":       "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n",
		"another host":        "GET http://other.example/ HTTP/1.1\r\n" + host + "\r\n",
		"two hosts":           "GET / HTTP/1.1\r\n" + host + "Host: other.example\r\n\r\n",
	} {
		if got, err := w.ask(request); err != nil || !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%s: the visitor got %.200q, %v", name, got, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heads) != before {
		t.Errorf("the service was asked %q", s.heads[before:])
	}
}

func answerBeforeTheEnd(t *testing.T, w *world, m mapping, s *raw) {
	s.play = func(c *net.TCPConn, _ string, in *bufio.Reader) {
		_, _ = in.ReadByte()
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, in)
	}
	c := w.connect()
	_, _ = io.WriteString(c, head(m, "POST /", "Content-Length: 1000000")+"x")
	in := bufio.NewReader(c)
	answer, err := in.ReadString('\n') // long before the upload is over
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 413") {
		t.Errorf("the visitor got %q, %v", answer, err)
	}
}

func largeCookie(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing(okAnswer)
	w.must(t, head(m, "GET /", "Connection: close", "Cookie: "+strings.Repeat("x", 64<<10)), "200 OK")
	c := w.connect()
	go func() { _, _ = io.WriteString(c, head(m, "GET /", "Cookie: "+strings.Repeat("x", 3<<19))) }()
	answer, err := bufio.NewReader(c).ReadString('\n')
	if !strings.HasPrefix(answer, "HTTP/1.1 431") && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("1.5 MB of cookie get %q, %v", answer, err)
	}
}

func strangersForwarded(t *testing.T, w *world, m mapping, s *raw) {
	s.play = playing(okAnswer)
	w.must(t, head(m, "GET /", "Connection: close", "X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https", "X-Forwarded-Host: bank.example", "Forwarded: for=192.0.2.66"), "200 OK")
	said := s.said(t)
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": m.name()} {
		if got := strings.Join(field(said, name), ","); got != want {
			t.Errorf("the service is told %s: %q, want %q", name, got, want)
		}
	}
	if got := strings.Join(field(said, "Forwarded"), ","); strings.Contains(got, "192.0.2.66") || !strings.Contains(got, "127.0.0.1") {
		t.Errorf("the service is told Forwarded: %q", got)
	}
}

// A proxy that the operator trusts is believed, and its word extended.
func TestTrustedProxy(t *testing.T) {
	w := embedded(t, "--trusted-proxies", "127.0.0.0/8", "--advertise-http", "https://*."+baseDomain)
	s := &raw{play: playing(okAnswer)}
	m := w.rawSite(s)
	if want := "https://" + m.name() + "/"; m.URL != want {
		t.Errorf("the URL is %s, want %s", m.URL, want)
	}
	programs.Eventually(t, limit, func() error {
		got, err := w.ask(head(m, "GET /", "Connection: close", "X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https"))
		if err == nil && !strings.Contains(got, "200 OK") {
			err = fmt.Errorf("got %.200q", got)
		}
		return err
	})
	said := s.said(t)
	if got := strings.Join(field(said, "X-Forwarded-For"), ","); got != "192.0.2.66, 127.0.0.1" {
		t.Errorf("the service is told %q", got)
	}
	if got := strings.Join(field(said, "X-Forwarded-Proto"), ","); got != "https" {
		t.Errorf("the service is told %q", got)
	}
}
