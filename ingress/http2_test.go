package ingress_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// h2c is a client of HTTP/2 by prior knowledge, with one connection.
func h2c(t *testing.T, address string) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// An aborted request of HTTP/2 ends its own exchange, and no other one of the same
// connection.
func TestAbortedRequestOfHTTP2EndsAlone(t *testing.T) {
	var begun, ended atomic.Int32
	answer := make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	defer release()
	w := newWorld(t, func(c *net.TCPConn) {
		b := bufio.NewReader(c)
		head, err := readHead(b)
		if err != nil {
			return
		}
		begun.Add(1)
		if strings.HasPrefix(head, "GET /abort ") {
			_, _ = b.ReadByte() // until the visitor is gone
			ended.Add(1)
			return
		}
		<-answer
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	})
	client := h2c(t, w.address)
	ask := func(ctx context.Context, path string) error {
		in, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app.example.org"+path, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(in)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}

	ctx, abort := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { results <- ask(ctx, "/abort") }()
	eventually(t, "the first request is at the service", func() bool { return begun.Load() == 1 })
	go func() { results <- ask(t.Context(), "/") }()
	eventually(t, "the second request is at the service", func() bool { return begun.Load() == 2 })

	abort()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Fatalf("the aborted request gives %v", err)
	}
	eventually(t, "the service hears of the abort", func() bool { return ended.Load() == 1 })
	release()
	if err := <-results; err != nil {
		t.Fatalf("the other request gives %v", err)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not so within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
}
