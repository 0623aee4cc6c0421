package transport

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// How an agent asks for a session over WebSocket, and how a listener answers. The request
// is GET /tunnox with the upgrade of RFC 6455. Its subprotocol says what the frames
// carry:
//
//   - tunnox.1: the session's own frames. The TLS around the WebSocket is the session's.
//   - tunnox.1.tls: TLS 1.3 with the session in it, as over TCP. Whoever ends the TLS
//     around the WebSocket, such as nginx or a company's proxy, sees ciphertext, and the
//     agent verifies the forwarder itself.
//
// The agent cannot know what stands between it and the forwarder. So it sends a value that
// only the two ends of its TLS connection can compute, and the forwarder compares it with
// its own. If they differ, or there is no TLS, the answer is tunnox.1.tls.
const (
	wsPath        = "/tunnox"
	wsDirect      = "tunnox.1"
	wsInside      = "tunnox.1.tls"
	wsEndHeader   = "Tunnox-Tls-End"
	wsEndLabel    = "EXPORTER-Tunnox-WebSocket"
	wsGUID        = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455, section 1.3
	wsRequestMost = 8 << 10                                // bytes of a request or an answer before its body
	httpProtocol  = "http/1.1"                             // the name in ALPN
)

// wsAccept is the answer to a Sec-WebSocket-Key.
func wsAccept(key string) string {
	sum := sha1.Sum([]byte(key + wsGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// wsEnd is the value that tells whether both sides are ends of one TLS connection; "" if
// conn is none.
func wsEnd(conn net.Conn) string {
	over, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	state := over.ConnectionState()
	value, err := state.ExportKeyingMaterial(wsEndLabel, nil, 32)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(value)
}

// UpgradeError is the answer of a server that did not agree on WebSocket.
type UpgradeError struct {
	Status string // such as "502 Bad Gateway"
	Code   int
}

// Error says what the server answered.
func (e *UpgradeError) Error() string {
	return fmt.Sprintf("the server answered %q instead of a WebSocket", e.Status)
}

// askWebSocket agrees on WebSocket with the server. direct allows the session's own frames
// on conn. It returns the connection of bytes, and whether that is direct.
func askWebSocket(ctx context.Context, conn net.Conn, host string, direct bool) (_ *webSocket, isDirect bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			err = fmt.Errorf("ask for a websocket: %w", ctx.Err())
		}
	}()
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails
	key := base64.StdEncoding.EncodeToString(nonce)
	offer := wsInside
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tunnox\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", wsPath, host, key)
	if direct {
		offer = wsDirect + ", " + wsInside
		fmt.Fprintf(&b, "%s: %s\r\n", wsEndHeader, wsEnd(conn))
	}
	fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n\r\n", offer)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, false, fmt.Errorf("ask for a websocket: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(conn, wsRequestMost))
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, false, fmt.Errorf("ask for a websocket: %w", cutShort(err))
	}
	_ = answer.Body.Close() // of a 101 it is empty, and conn is closed behind any other
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, false, fmt.Errorf("ask for a websocket: %w", &UpgradeError{Status: answer.Status, Code: answer.StatusCode})
	}
	chosen := answer.Header.Get("Sec-WebSocket-Protocol")
	switch {
	case !hasToken(answer.Header, "Upgrade", "websocket") || answer.Header.Get("Sec-WebSocket-Accept") != wsAccept(key):
		return nil, false, errors.New("ask for a websocket: the answer belongs to another request")
	case chosen != wsInside && !(direct && chosen == wsDirect):
		return nil, false, fmt.Errorf("ask for a websocket: the server speaks %q, not %q", chosen, offer)
	}
	return newWebSocket(conn, true, heldOf(r)), chosen == wsDirect, nil
}

// answerWebSocket reads a request and agrees on WebSocket. After an error the peer has its
// answer, and conn must be closed.
func answerWebSocket(conn net.Conn) (_ *webSocket, isDirect bool, err error) {
	r := bufio.NewReader(io.LimitReader(conn, wsRequestMost))
	request, err := http.ReadRequest(r)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			refuseHTTP(conn, http.StatusBadRequest, "")
		}
		return nil, false, fmt.Errorf("read http request: %w", err)
	}
	refuse := func(code int, header string) (*webSocket, bool, error) {
		refuseHTTP(conn, code, header)
		return nil, false, fmt.Errorf("http request answered with %d", code)
	}
	key := request.Header.Get("Sec-WebSocket-Key")
	nonce, keyErr := base64.StdEncoding.DecodeString(key)
	offered := tokens(request.Header, "Sec-WebSocket-Protocol")
	end := wsEnd(conn)
	protocol := wsInside
	if end != "" && hmac.Equal([]byte(request.Header.Get(wsEndHeader)), []byte(end)) && slices.Contains(offered, wsDirect) {
		protocol = wsDirect
	}
	switch {
	case request.URL.Path != wsPath:
		return refuse(http.StatusNotFound, "")
	case request.Method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "Allow: GET\r\n")
	case !request.ProtoAtLeast(1, 1) || !hasToken(request.Header, "Connection", "upgrade") || !hasToken(request.Header, "Upgrade", "websocket"):
		return refuse(http.StatusUpgradeRequired, "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	case request.Header.Get("Sec-WebSocket-Version") != "13":
		return refuse(http.StatusUpgradeRequired, "Sec-WebSocket-Version: 13\r\n")
	case keyErr != nil || len(nonce) != 16 || !slices.Contains(offered, protocol) || request.ContentLength != 0:
		return refuse(http.StatusBadRequest, "")
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		wsAccept(key), protocol)
	if err != nil {
		return nil, false, fmt.Errorf("answer http request: %w", err)
	}
	return newWebSocket(conn, false, heldOf(r)), protocol == wsDirect, nil
}

// refuseHTTP answers a request that gives no session. header is lines of it. The date lets
// whoever looks for a fault compare clocks (tunnox doctor).
func refuseHTTP(conn net.Conn, code int, header string) {
	text := fmt.Sprintf("%d %s\n", code, http.StatusText(code))
	if !strings.Contains(header, "Connection:") {
		header += "Connection: close\r\n"
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%s\r\n%s",
		code, http.StatusText(code), time.Now().UTC().Format(http.TimeFormat), len(text), header, text)
}

// linger closes a connection behind an answer. A close with unread bytes is a reset, which
// may overtake the answer, so it reads a little.
func linger(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(byeLimit))
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, conn, 8*wsRequestMost)
	_ = conn.Close()
}

// heldOf is what a reader has read too far.
func heldOf(r *bufio.Reader) []byte {
	held, _ := r.Peek(r.Buffered())
	return slices.Clone(held)
}

// tokens are the words of a header that lists such.
func tokens(h http.Header, name string) (all []string) {
	for _, line := range h.Values(name) {
		for word := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(word))
		}
	}
	return all
}

// hasToken tells whether a header that lists words has this one, however it is spelled.
func hasToken(h http.Header, name, want string) bool {
	return slices.ContainsFunc(tokens(h, name), func(word string) bool { return strings.EqualFold(word, want) })
}
