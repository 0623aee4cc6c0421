package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/ingress"
)

// net/http waits half a second behind its end of some connections, by itself.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// limit bounds what a test waits for; it decides nothing.
const limit = 20 * time.Second

// world is a server with one service behind the host app.example.org.
type world struct {
	t       *testing.T
	server  *ingress.Server
	address string // of the server
	site    ingress.Site
	found   string // the path that was looked up last

	mu   sync.Mutex
	gone error // what dialling the service says instead
}

// newWorld serves visitors; the service answers each connection.
func newWorld(t *testing.T, service func(*net.TCPConn)) *world {
	t.Helper()
	return newWorldWith(t, service, func(*ingress.Config) {})
}

// newWorldWith is newWorld with other settings of the server.
func newWorldWith(t *testing.T, service func(*net.TCPConn), change func(*ingress.Config)) *world {
	t.Helper()
	w := &world{t: t}
	var serving sync.WaitGroup
	back := listen(t)
	serving.Go(func() {
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				service(c.(*net.TCPConn))
			})
		}
	})
	w.site = ingress.Site{Mapping: 1, Version: 1, Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		w.mu.Lock()
		gone := w.gone
		w.mu.Unlock()
		if gone != nil {
			return nil, gone
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", back.Addr().String())
	}}
	config := ingress.Config{Finder: w, Logger: slog.New(slog.DiscardHandler),
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	change(&config)
	w.server = ingress.New(config)
	front := listen(t)
	w.address = front.Addr().String()
	serving.Go(func() {
		if err := w.server.Serve(front); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		_ = back.Close()
		if err := w.server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Find implements ingress.Finder.
func (w *world) Find(_ context.Context, host, path, _ string) (ingress.Site, error) {
	if host != "app.example.org" {
		return ingress.Site{}, ingress.ErrNoSite
	}
	w.found = path
	return w.site, nil
}

// dial connects a visitor.
func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	w.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// exchange sends raw bytes and their end (go#18527: that is no abort), and reads all of
// the answer.
func (w *world) exchange(request string) string {
	w.t.Helper()
	return w.exchangeFrom("127.0.0.1", request)
}

// exchangeFrom is exchange for a visitor, or a proxy, at an address.
func (w *world) exchangeFrom(address, request string) string {
	w.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	c := conn.(*net.TCPConn)
	if _, err := io.WriteString(c, request); err != nil {
		w.t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		w.t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return string(got) + "!" + err.Error()
	}
	return string(got)
}

// get is a request that ends its connection.
func get(target string, headers ...string) string {
	return request("GET", target, headers...)
}

func request(method, target string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: app.example.org\r\nConnection: close\r\n" +
		strings.Join(append(headers, "", ""), "\r\n")
}

// raw is a service that keeps the exact heads it was sent and plays one answer.
type raw struct {
	mu     sync.Mutex
	heads  []string
	answer string
	after  func(*net.TCPConn, *bufio.Reader) // instead of the end, when set
}

func (r *raw) serve(c *net.TCPConn) {
	b := bufio.NewReader(c)
	head, err := readHead(b)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.heads = append(r.heads, head)
	r.mu.Unlock()
	_, _ = io.WriteString(c, r.answer)
	if r.after != nil {
		r.after(c, b)
	}
}

func (r *raw) head(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.heads) != 1 {
		t.Fatalf("the service was asked %d times, want once: %q", len(r.heads), r.heads)
	}
	return r.heads[0]
}

func readHead(b *bufio.Reader) (string, error) {
	var head bytes.Buffer
	for {
		line, err := b.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

func line(head, name string) string {
	for l := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func mustContain(t *testing.T, answer string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(answer, part) {
			t.Errorf("the visitor got %.600q, want %q in it", answer, part)
		}
	}
}
