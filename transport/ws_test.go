package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tunnox-net/tunnox/test/pace"
)

// The library at the other end of our frames, in both roles. It sends in pieces, and asks
// for pongs.
func TestWebSocketFramesAgainstALibrary(t *testing.T) {
	const size = 300_000
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	exchange := func(t *testing.T, ours *webSocket, theirs *websocket.Conn) {
		ctx := within(t, 30*time.Second)
		theirs.SetReadLimit(-1)
		stream := websocket.NetConn(ctx, theirs, websocket.MessageBinary)
		failed := make(chan error, 3)
		go func() {
			for b := sent; len(b) > 0; {
				n := min(len(b), 1+rand.IntN(40_000))
				if _, err := ours.Write(b[:n]); err != nil {
					failed <- err
					return
				}
				b = b[n:]
			}
			failed <- nil
		}()
		go func() {
			for i, b := 0, sent; len(b) > 0; i++ {
				n := min(len(b), 1+rand.IntN(20_000))
				if _, err := stream.Write(b[:n]); err != nil {
					failed <- err
					return
				}
				b = b[n:]
			}
			failed <- theirs.Ping(ctx) // needs our pong, which our reader sends
		}()
		go func() {
			got := make([]byte, size)
			if _, err := io.ReadFull(stream, got); err != nil || !bytes.Equal(got, sent) {
				failed <- fmt.Errorf("the library did not get what we sent: %w", err)
				return
			}
			failed <- nil
			_, _ = stream.Read(got) // reads on: the library takes the pong and our close there
		}()
		got := make([]byte, size)
		if _, err := io.ReadFull(ours, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("we did not get what the library sent: %v", err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := ours.Read(make([]byte, 1)) // answers the ping, then gets the close
			ended <- err
		}()
		for range 3 {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		go func() { _ = theirs.Close(websocket.StatusNormalClosure, "") }()
		if err := <-ended; err != io.EOF {
			t.Errorf("after the close: %v", err)
		}
		_ = ours.Close()
	}
	t.Run("the library listens", func(t *testing.T) {
		accepted := make(chan *websocket.Conn, 1)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wsInside}})
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}))
		defer s.Close()
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ours, direct, err := askWebSocket(within(t, 10*time.Second), conn, "tunnox.test", true)
		if err != nil || direct {
			t.Fatalf("%v, direct %v", err, direct)
		}
		exchange(t, ours, <-accepted)
	})
	t.Run("the library dials", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		accepted := make(chan *webSocket, 1)
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			ours, _, err := answerWebSocket(conn)
			if err != nil {
				t.Error(err)
			}
			accepted <- ours
		}()
		theirs, answer, err := websocket.Dial(within(t, 10*time.Second), "ws://"+ln.Addr().String()+wsPath, &websocket.DialOptions{Subprotocols: []string{wsDirect, wsInside}})
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != wsInside {
			t.Errorf("without TLS the answer is %q", got)
		}
		exchange(t, <-accepted, theirs)
	})
}

// Frames may be cut anywhere, and headers come in every length.
func TestWebSocketFramesAtEveryBorder(t *testing.T) {
	for _, client := range []bool{true, false} {
		for _, size := range []int{1, 125, 126, 500, 511, 512, 513, 65535, 65536} {
			var wire bytes.Buffer
			w := newWebSocket(&scripted{Writer: &wire}, client, nil)
			payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
			for range 2 {
				if n, err := w.Write(payload); n != size || err != nil {
					t.Fatal(n, err)
				}
			}
			for _, chunk := range []int{1, 2, 3, 13, 14, 511, 4096, 1 << 20} {
				r := newWebSocket(&scripted{Reader: &chunked{b: wire.Bytes(), chunk: chunk}}, !client, nil)
				got, err := io.ReadAll(r)
				if err != nil && err != io.EOF || !bytes.Equal(got, append(append([]byte(nil), payload...), payload...)) {
					t.Fatalf("client %v, %d bytes in chunks of %d: %d bytes came, %v", client, size, chunk, len(got), err)
				}
			}
		}
	}
}

// chunked gives a few bytes at a time.
type chunked struct {
	b     []byte
	chunk int
}

func (c *chunked) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.b[:min(len(c.b), c.chunk)])
	c.b = c.b[n:]
	return n, nil
}

// scripted is a connection that reads and writes elsewhere.
type scripted struct {
	net.Conn
	io.Reader
	io.Writer
}

func (s *scripted) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s *scripted) Write(b []byte) (int, error) { return s.Writer.Write(b) }

func TestWebSocketRefusesBrokenFrames(t *testing.T) {
	for name, frame := range map[string][]byte{
		"not masked":            {0x82, 1, 'x'},
		"text":                  {0x81, 0x81, 0, 0, 0, 0, 'x'},
		"unknown kind":          {0x83, 0x81, 0, 0, 0, 0, 'x'},
		"an extension":          {0xc2, 0x81, 0, 0, 0, 0, 'x'},
		"a ping in parts":       {0x09, 0x81, 0, 0, 0, 0, 'x'},
		"a ping of 126 bytes":   append([]byte{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, make([]byte, 126)...),
		"2^63 bytes":            {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'},
		"a cut header":          {0x82},
		"a cut length":          {0x82, 0xfe, 1},
		"a cut payload":         {0x82, 0x82, 0, 0, 0, 0, 'x'},
		"a cut ping":            {0x89, 0x82, 0, 0, 0, 0, 'x'},
		"a reserved control":    {0x8b, 0x80, 0, 0, 0, 0},
		"an empty frame, a cut": {0x82, 0x80, 0, 0, 0, 0, 0x82},
	} {
		r := newWebSocket(&scripted{Reader: bytes.NewReader(frame), Writer: io.Discard}, false, nil)
		b := make([]byte, 200)
		_, err := io.ReadFull(r, b)
		if !errors.Is(err, errWebSocket) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzWebSocketFrames(f *testing.F) {
	f.Add([]byte{0x82, 0x83, 1, 2, 3, 4, 'x', 'y', 'z', 0x88, 0x80, 0, 0, 0, 0}, 3)
	f.Add([]byte{0x89, 0x81, 1, 2, 3, 4, 'x', 0x02, 0xfe, 0, 1, 1, 2, 3, 4, 'x'}, 100)
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9, 'x'}, 1)
	f.Fuzz(func(t *testing.T, wire []byte, chunk int) {
		all := func(chunk int) ([]byte, error) {
			r := newWebSocket(&scripted{Reader: &chunked{b: wire, chunk: chunk}, Writer: io.Discard}, false, nil)
			return io.ReadAll(r)
		}
		whole, wholeErr := all(len(wire) + 1)
		cut, cutErr := all(1 + max(0, chunk)%20)
		if !bytes.Equal(whole, cut) || (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("%x and %v at once, %x and %v in pieces", whole, wholeErr, cut, cutErr)
		}
		if len(whole) > len(wire) {
			t.Fatalf("%d bytes of %d", len(whole), len(wire))
		}
	})
}

func FuzzWebSocketRequest(f *testing.F) {
	f.Add([]byte("GET /tunnox HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: tunnox.1.tls\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST /tunnox HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, request []byte) {
		var answer bytes.Buffer
		ws, direct, err := answerWebSocket(&scripted{Reader: bytes.NewReader(request), Writer: &answer})
		if agreed := strings.HasPrefix(answer.String(), "HTTP/1.1 101 "); agreed != (err == nil) || direct || (ws != nil) != agreed {
			t.Fatalf("%q, %v", answer.String(), err)
		}
	})
}

// askRaw sends a request as it is and returns the answer's status.
func askRaw(t *testing.T, conn net.Conn, request string) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	status, _, _ := strings.Cut(string(answer), "\r\n")
	return status
}

// What is no WebSocket for us gets an answer that a person or a probe understands, and
// the listener keeps nothing.
func TestOtherHTTPGetsAnAnswer(t *testing.T) {
	l, pin := startTLS(t, calm)
	const upgrade = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                                        "404 Not Found",
		"GET /tunnox HTTP/1.1\r\nHost: x\r\n\r\n":                                                  "426 Upgrade Required",
		"GET /tunnox HTTP/1.1\r\n" + strings.Replace(upgrade, "13", "8", 1) + "\r\n":               "426 Upgrade Required",
		"GET /tunnox HTTP/1.1\r\n" + upgrade + "\r\n":                                              "400 Bad Request",
		"GET /tunnox HTTP/1.1\r\n" + upgrade + "Sec-WebSocket-Protocol: tunnox.1\r\n\r\n":          "400 Bad Request",
		"POST /tunnox HTTP/1.1\r\n" + upgrade + "\r\n":                                             "405 Method Not Allowed",
		"GET /tunnox HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", wsRequestMost) + "\r\n\r\n": "400 Bad Request",
		"nonsense\r\n\r\n": "400 Bad Request",
	} {
		if got := askRaw(t, dialRaw(t, l), request); got != "HTTP/1.1 "+want {
			t.Errorf("%.60q: %s, want %s", request, got, want)
		}
		over := tls.Client(dialRaw(t, l), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if got := askRaw(t, over, request); got != "HTTP/1.1 "+want {
			t.Errorf("over TLS, %.60q: %s, want %s", request, got, want)
		}
	}
	noStrangers(t, l)
	s, err := DialWSS(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}

// Slow and silent strangers over WebSocket are gone in time, as over TLS.
func TestWebSocketStrangersHaveDeadlines(t *testing.T) {
	watch := pace.Measure(t)
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.FirstByte, c.Handshake, c.Authenticate = 50*time.Millisecond, 200*time.Millisecond, 400*time.Millisecond
	})
	const request = "GET /tunnox HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: tunnox.1.tls\r\n"
	overTLS := func(c net.Conn) net.Conn {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	for name, begin := range map[string]func(net.Conn){
		"half a request":              func(c net.Conn) { _, _ = io.WriteString(c, request) },
		"half a request in TLS":       func(c net.Conn) { _, _ = io.WriteString(overTLS(c), request) },
		"TLS and no request":          func(c net.Conn) { _ = overTLS(c).(*tls.Conn).Handshake() },
		"a WebSocket and no more":     func(c net.Conn) { _, _ = io.WriteString(c, request+"\r\n") },
		"a WebSocket in TLS, no more": func(c net.Conn) { _, _ = io.WriteString(overTLS(c), request+"\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, l)
			begin(c)
			if took := closedBy(t, c); took > watch.Allow(3*time.Second) {
				t.Errorf("closed after %v", took)
			}
		})
	}
	t.Run("never admitted", func(t *testing.T) {
		for _, dial := range []DialFunc{DialWS, DialWSS} {
			s, err := dial(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := l.Accept(within(t, 10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if l.Strangers() == 0 {
				t.Error("nobody counts the stranger")
			}
			select {
			case <-s.Done():
			case <-time.After(pace.Guard):
				t.Error("a stranger stays")
			}
			_, _ = s.Close(), theirs.Close()
		}
	})
	noStrangers(t, l)
}

// front is what stands before a server and ends TLS: a reverse proxy, or a proxy that
// breaks TLS. It relays bytes, and counts those that look like frames of a session.
func front(t *testing.T, cert tls.Certificate, to string, again bool) (address string) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var back net.Conn
				if again {
					back, err = tls.Dial("tcp", to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
				} else {
					back, err = net.Dial("tcp", to)
				}
				if err != nil {
					return
				}
				defer back.Close()
				go func() { _, _ = io.Copy(back, c); _ = back.Close() }()
				_, _ = io.Copy(c, back)
			}()
		}
	}()
	return ln.Addr().String()
}

// Whoever ends TLS before the server, the session's own TLS ends at the server, which the
// pin still proves.
func TestSessionThroughSomebodyElsesTLS(t *testing.T) {
	l, pin := startTLS(t, calm)
	_, other := startTLS(t, calm)
	authority, authorityKey := issue(t, "somebody's authority", true, time.Now().Add(time.Hour), nil, nil)
	leaf, leafKey := issue(t, "tunnox.test", false, time.Now().Add(time.Hour), authority, authorityKey)
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	for name, again := range map[string]bool{"a reverse proxy": false, "a proxy that breaks TLS": true} {
		t.Run(name, func(t *testing.T) {
			address := front(t, cert, l.Addr().String(), again)
			dial := func(c DialConfig) (Session, error) {
				c.ServerName = "tunnox.test"
				return DialWSS(within(t, 20*time.Second), address, c)
			}
			s, err := dial(DialConfig{Pins: []Pin{pin}, Front: roots})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			theirs, err := l.Accept(within(t, 10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			if !bytes.Equal(s.Binding(), theirs.Binding()) {
				t.Error("the two ends have two bindings")
			}
			if _, err := dial(DialConfig{Pins: []Pin{other}, Front: roots}); !errors.Is(err, ErrPin) {
				t.Errorf("another server's pin: %v", err)
			}
			if _, err := dial(DialConfig{Pins: []Pin{pin}}); !errors.Is(err, ErrPin) { // the system does not know the authority
				t.Errorf("nobody vouches for the proxy: %v", err)
			}
			if _, err := dial(DialConfig{Roots: roots}); err == nil || !strings.Contains(err.Error(), "inside of the websocket") {
				t.Errorf("without a pin: %v", err)
			}
			if s, err := DialTLS(within(t, 20*time.Second), address, DialConfig{Pins: []Pin{pin}, Front: roots}); err == nil {
				_ = s.Close()
				t.Error("Front let plain TLS through")
			}
		})
	}
}

// With a pin that matches, and with roots, the session needs no TLS of its own.
func TestDirectWebSocketHasOneTLS(t *testing.T) {
	l, pin := startTLS(t, calm)
	for name, inside := range map[string]bool{"wss": false, "ws": true} {
		dial := map[string]DialFunc{"wss": DialWSS, "ws": DialWS}[name]
		s, err := dial(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
		if err != nil {
			t.Fatal(err)
		}
		if _, over := s.(*muxSession).conn.(*tls.Conn); over != inside {
			t.Errorf("%s: TLS inside is %v", name, over)
		}
		_ = s.Close()
	}
}

// The end of the context ends an upgrade that hangs.
func TestUpgradeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := DialWS(ctx, ln.Addr().String(), DialConfig{Pins: []Pin{{}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}
