package ingress_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\nKeep-Alive: timeout=5\r\n\r\n"

// After an upgrade bytes flow both ways, those too that came with the heads, and each
// direction ends by itself (caddy#8026).
func TestWebSocket(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	service := &raw{answer: switching + "first", after: func(c *net.TCPConn, b *bufio.Reader) {
		got, err := io.ReadAll(b) // until the visitor has ended
		if err != nil || string(got) != strings.Repeat("x", 1024) {
			t.Errorf("the service read %d bytes: %v", len(got), err)
		}
		_, _ = c.Write(big)
	}}
	w := newWorld(t, service.serve)
	visitor := w.dial()
	_, _ = io.WriteString(visitor, upgradeTo("websocket", "/chat")+strings.Repeat("x", 1024)) // bytes behind the head, in one packet
	_ = visitor.CloseWrite()
	b := bufio.NewReader(visitor)
	head, err := readHead(b)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("the visitor got %q: %v", head, err)
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Keep-Alive": "",
		"Sec-WebSocket-Accept": "HSmrc0sMlYUkAGmm5OPpG2HaGWk="} {
		if got := line(head, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, append([]byte("first"), big...)) {
		t.Errorf("the visitor read %d bytes: %v", len(got), err)
	}
	asked := service.head(t)
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"X-Forwarded-For": "127.0.0.1"} {
		if got := line(asked, name); got != want {
			t.Errorf("the service saw %s %q, want %q", name, got, want)
		}
	}
}

// A service that says no to an upgrade is an ordinary answer.
func TestRefusedUpgrade(t *testing.T) {
	service := &raw{answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: no\r\n\r\nno"}
	w := newWorld(t, service.serve)
	mustContain(t, w.exchange(upgradeTo("websocket", "/")), "HTTP/1.1 403", "X-Why: no", "\r\n\r\n", "no")
}

// Other upgrades are requests without one: h2c would smuggle requests past the rules
// of a host.
func TestOtherUpgradesAreNotCarried(t *testing.T) {
	service := &raw{answer: ok}
	w := newWorld(t, service.serve)
	mustContain(t, w.exchange(upgradeTo("h2c", "/")), "200 OK")
	if head := service.head(t); line(head, "Upgrade") != "" || strings.Contains(head, "Upgrade") {
		t.Errorf("the service was asked for an upgrade: %q", head)
	}
}

// A switch that nobody asked for shows nothing of the service's bytes.
func TestUnaskedSwitch(t *testing.T) {
	service := &raw{answer: switching + "secret"}
	w := newWorld(t, service.serve)
	answer := w.exchange(get("/"))
	mustContain(t, answer, "HTTP/1.1 502")
	if strings.Contains(answer, "secret") {
		t.Errorf("the visitor got %q", answer)
	}
	service = &raw{answer: strings.Replace(switching, "Upgrade: websocket", "Upgrade: other", 1) + "secret"}
	w = newWorld(t, service.serve)
	answer = w.exchange(upgradeTo("websocket", "/"))
	mustContain(t, answer, "HTTP/1.1 502")
	if strings.Contains(answer, "secret") {
		t.Errorf("the visitor got %q", answer)
	}
}

// One end that goes away takes the other along.
func TestAWebSocketEndsWithItsService(t *testing.T) {
	service := &raw{answer: switching, after: func(c *net.TCPConn, _ *bufio.Reader) { _ = c.SetLinger(0) }}
	w := newWorld(t, service.serve)
	visitor := w.dial()
	_, _ = io.WriteString(visitor, upgradeTo("websocket", "/"))
	if got, err := io.ReadAll(visitor); err == nil && len(got) > 0 {
		t.Errorf("the visitor got %q and a proper end, want a reset", got)
	}
}
