package ingress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/tunnox-net/tunnox/ingress"
)

// overHTTP3 serves the world's host over HTTP/3 and gives the server, the address, and
// what a visitor needs to trust it.
func (w *world) overHTTP3(change func(*ingress.Config)) (server *ingress.Server, address string, trust *tls.Config) {
	w.t.Helper()
	certificate, trust := w.identity()
	config := ingress.Config{Finder: w, Logger: slog.New(slog.DiscardHandler)}
	change(&config)
	server = ingress.New(config)
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.ServeHTTP3(socket, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }); err != nil {
			w.t.Errorf("serve: %v", err)
		}
	})
	w.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			w.t.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return server, socket.LocalAddr().String(), trust
}

// visitor3 is a visitor over HTTP/3 whose every name leads to one address.
func visitor3(t *testing.T, address string, trust *tls.Config) *http3.Transport {
	t.Helper()
	transport := &http3.Transport{TLSClientConfig: trust, DisableCompression: true,
		Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address, config, settings)
		}}
	t.Cleanup(func() { _ = transport.Close() })
	return transport
}

// A request over HTTP/3 goes the way of every other: the service gets it as it was sent,
// without a body that there is none of, and hears of a visitor who goes away.
func TestHTTP3(t *testing.T) {
	t.Parallel()
	heads, pieces, gone := make(chan string, 2), make(chan string, 1), make(chan struct{})
	w := newWorld(t, func(c *net.TCPConn) {
		b := bufio.NewReader(c)
		head, err := readHead(b)
		if err != nil {
			return
		}
		if strings.HasPrefix(head, "POST ") {
			piece, _ := b.ReadString('\n')
			pieces <- piece
			_, _ = io.Copy(io.Discard, b)
			close(gone)
			return
		}
		heads <- head
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Service: yes\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	_, address, trust := w.overHTTP3(func(*ingress.Config) {})
	visitor := visitor3(t, address, trust)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	get, err := http.NewRequestWithContext(ctx, "GET", "https://app.example.org/a?x=%zz&y", nil)
	if err != nil {
		t.Fatal(err)
	}
	get.Header = http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Cookie": {"a=1"}}
	res, err := visitor.RoundTrip(get)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(body) != "ok" || res.ProtoMajor != 3 || res.Header.Get("X-Service") != "yes" || res.Header.Get("Date") != "" || res.Header.Get("Content-Type") != "" {
		t.Errorf("the visitor got %v %q %v, %v", res.Status, body, res.Header, err)
	}
	head := <-heads
	if !strings.HasPrefix(head, "GET /a?x=%zz&y HTTP/1.1\r\nHost: app.example.org\r\n") || line(head, "X-Forwarded-Proto") != "https" ||
		line(head, "X-Forwarded-For") != "127.0.0.1" || line(head, "Content-Length") != "" || line(head, "Transfer-Encoding") != "" || line(head, "Cookie") != "a=1" {
		t.Errorf("the service got %q", head)
	}
	other, err := http.NewRequestWithContext(ctx, "GET", "https://app.example.org/", nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Host = "other.example.org"
	if res, err := visitor.RoundTrip(other); err != nil || res.StatusCode != http.StatusMisdirectedRequest || res.Body.Close() != nil {
		t.Errorf("another host than that of the handshake is answered %v, %v", res, err)
	}

	part, upload := io.Pipe()
	going, goAway := context.WithCancel(ctx)
	defer goAway()
	req, err := http.NewRequestWithContext(going, "POST", "https://app.example.org/up", part)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		res, err := visitor.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	if _, err := io.WriteString(upload, "hello"); err != nil {
		t.Fatal(err)
	}
	if piece := <-pieces; piece != "5\r\n" {
		t.Errorf("the upload begins with %q", piece)
	}
	goAway()
	select {
	case <-gone:
	case <-ctx.Done():
		t.Error("the service did not hear that the visitor went away")
	}
	if err := <-answered; err == nil {
		t.Error("a visitor who went away got an answer")
	}
	_ = upload.Close()
}

// What strangers can hold over HTTP/3 ends by itself, and a host whose TLS is passed
// through is refused.
func TestHTTP3Strangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, (&raw{answer: ok}).serve)
	_, address, trust := w.overHTTP3(func(c *ingress.Config) {
		c.HeaderTimeout = 300 * time.Millisecond
		c.Pass = func(_ context.Context, host, _ string) (ingress.Passage, error) {
			if host == "passed.example.org" {
				return func(net.Conn, []byte) error { return errors.New("nobody comes here") }, nil
			}
			return nil, ingress.ErrNoSite
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	config := trust.Clone()
	config.NextProtos = []string{http3.NextProtoH3}
	conn, err := quic.DialAddr(ctx, address, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	for _, begin := range []string{"\x01", "\x01\x20\x00"} { // a frame of headers that does not come to its end
		stream, err := conn.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stream, begin); err != nil {
			t.Fatal(err)
		}
		_ = stream.SetReadDeadline(time.Now().Add(limit))
		if _, err := stream.Read(make([]byte, 1)); !errors.As(err, new(*quic.StreamError)) {
			t.Errorf("a head that does not end is answered with %v, want a reset", err)
		}
	}
	config.ServerName = "passed.example.org"
	if conn, err := quic.DialAddr(ctx, address, config, nil); err == nil {
		_ = conn.CloseWithError(0, "")
		t.Error("a host that is passed through is opened over HTTP/3")
	}
}

// A server that leaves lets a request over HTTP/3 end, and takes no other.
func TestHTTP3Shutdown(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(c *net.TCPConn) {
		if _, err := readHead(bufio.NewReader(c)); err == nil {
			close(begun)
			<-finish
			_, _ = io.WriteString(c, ok)
		}
	})
	server, address, trust := w.overHTTP3(func(*ingress.Config) {})
	visitor := visitor3(t, address, trust)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	ask := func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, "GET", "https://app.example.org/", nil)
		if err != nil {
			return nil, err
		}
		return visitor.RoundTrip(req)
	}
	type answer struct {
		body string
		err  error
	}
	first := make(chan answer, 1)
	go func() {
		res, err := ask()
		if err != nil {
			first <- answer{err: err}
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		first <- answer{string(text), err}
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(ctx) }()
	for { // until the server has begun to leave; a request that came earlier waits with the first
		late, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		req, err := http.NewRequestWithContext(late, "GET", "https://app.example.org/none", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.gone = ingress.ErrNoSite
		w.mu.Unlock()
		res, err := visitor.RoundTrip(req)
		stop()
		if err != nil {
			break
		}
		res.Body.Close()
	}
	close(finish)
	if got := <-first; got.err != nil || got.body != "ok" {
		t.Errorf("the request under way got %q, %v", got.body, got.err)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
