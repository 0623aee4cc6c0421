package ingress_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
)

// What a visitor asks arrives as it was written: field reports of tunnels that
// dropped or rewrote it are named at each line.
func TestRequestTargetsArriveAsTheyCame(t *testing.T) {
	for _, target := range []string{
		"/p?foo=bar;moo&x=%zz&y=a+b&&z", // tailscale#13058
		"/", "/?", "/a%2Fb", "/a//b", "//a", "/a;b=c", "/%e4", "/x?y=%2f%2F", "/caf%C3%A9",
	} {
		for _, upgrade := range []bool{false, true} {
			service := &raw{answer: ok}
			w := newWorld(t, service.serve)
			ask := get(target)
			if upgrade {
				ask = upgradeTo("websocket", target)
			}
			mustContain(t, w.exchange(ask), "200 OK")
			if got := strings.SplitN(service.head(t), " ", 3)[1]; got != target {
				t.Errorf("the service was asked for %q, want %q (upgrade: %v)", got, target, upgrade)
			}
		}
	}
}

func upgradeTo(protocol, target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: app.example.org\r\nConnection: Upgrade\r\nUpgrade: " + protocol +
		"\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

// Bodies keep their kind of length (cloudflared#1485).
func TestLengthsOfRequests(t *testing.T) {
	for name, c := range map[string]struct {
		ask              string
		length, encoding string
		body             string
	}{
		"no body":          {get("/"), "", "", ""},
		"a length of 0":    {request("POST", "/", "Content-Length: 0"), "0", "", ""},
		"DELETE with 0":    {request("DELETE", "/", "Content-Length: 0"), "0", "", ""},
		"a length":         {request("PUT", "/", "Content-Length: 3") + "abc", "3", "", "abc"},
		"chunked PATCH":    {request("PATCH", "/", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", "", "chunked", "3\r\nabc\r\n0\r\n\r\n"},
		"GET with a body":  {request("GET", "/", "Content-Length: 3") + "abc", "3", "", "abc"},
		"DELETE with none": {request("DELETE", "/"), "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			service := &raw{}
			service.after = func(conn *net.TCPConn, b *bufio.Reader) {
				body := make([]byte, len(c.body))
				_, _ = io.ReadFull(b, body)
				got <- string(body)
				_, _ = io.WriteString(conn, ok)
			}
			w := newWorld(t, service.serve)
			mustContain(t, w.exchange(c.ask), "200 OK")
			head := service.head(t)
			if l, e := line(head, "Content-Length"), line(head, "Transfer-Encoding"); l != c.length || e != c.encoding {
				t.Errorf("the service saw length %q and encoding %q, want %q and %q", l, e, c.length, c.encoding)
			}
			if body := <-got; body != c.body {
				t.Errorf("the service read %q, want %q", body, c.body)
			}
		})
	}
}

// What says where a request comes from is replaced, unless a trusted proxy says it
// (frp#4168).
func TestForwarded(t *testing.T) {
	lies := []string{"X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "Forwarded: for=9.9.9.9"}
	for name, c := range map[string]struct {
		from, forwardedFor, proto, host, forwarded string
	}{
		"a stranger": {"127.0.0.1", "127.0.0.1", "http", "app.example.org",
			`for=127.0.0.1;host="app.example.org";proto=http`},
		"a trusted proxy": {"127.0.0.2", "9.9.9.9, 127.0.0.2", "https", "evil",
			`for=9.9.9.9, for=127.0.0.2;host="app.example.org";proto=https`},
	} {
		t.Run(name, func(t *testing.T) {
			service := &raw{answer: ok}
			w := newWorld(t, service.serve)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
			visitor, err := d.Dial("tcp", w.address)
			if err != nil {
				t.Fatal(err)
			}
			defer visitor.Close()
			_, _ = io.WriteString(visitor, get("/", lies...))
			if _, err := io.ReadAll(visitor); err != nil {
				t.Fatal(err)
			}
			head := service.head(t)
			for header, want := range map[string]string{"X-Forwarded-For": c.forwardedFor, "X-Forwarded-Proto": c.proto,
				"X-Forwarded-Host": c.host, "Forwarded": c.forwarded, "Host": "app.example.org"} {
				if got := line(head, header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
		})
	}
}

// Nothing is added to a request but where it comes from, and nothing is left out but
// what belongs to the hop (traefik#6449).
func TestHeadersOfRequests(t *testing.T) {
	service := &raw{answer: ok}
	w := newWorld(t, service.serve)
	mustContain(t, w.exchange(get("/", "Accept-Encoding: br", "Keep-Alive: 5", "Te: trailers", "X-Hop: 1", "Connection: x-hop",
		"Proxy-Authorization: secret", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "X-Empty:", "Cookie: a=1", "Cookie: b=2")), "200 OK")
	head := service.head(t)
	for header, want := range map[string]string{"Accept-Encoding": "br", "Keep-Alive": "", "X-Hop": "", "Proxy-Authorization": "",
		"Upgrade": "", "HTTP2-Settings": "", "User-Agent": "", "Te": "trailers"} {
		if got := line(head, header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	for _, want := range []string{"X-Empty:", "Cookie: a=1", "b=2"} {
		if !strings.Contains(head, want) {
			t.Errorf("the service saw %q, want %q in it", head, want)
		}
	}
}

// Requests that two servers could read in two ways, or that are for a proxy, reach no
// service.
func TestRefusedRequests(t *testing.T) {
	const host = "Host: app.example.org\r\n"
	for name, c := range map[string]struct{ ask, want string }{
		"two lengths":           {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 400"},
		"a length with a sign":  {"POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na", "HTTP/1.1 400"},
		"two encodings":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400"},
		"an unknown encoding":   {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", "HTTP/1.1 501"},
		"a length and chunks":   {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n" + host + "\r\n", "HTTP/1.1 400"},
		"a bare LF":             {"GET / HTTP/1.1\n" + host + "\r\n", "HTTP/1.1 400"},
		"a folded line":         {"GET / HTTP/1.1\r\n" + host + "X: 1\r\n 2\r\n\r\n", "HTTP/1.1 400"},
		"space before a colon":  {"GET / HTTP/1.1\r\n" + host + "X : 1\r\n\r\n", "HTTP/1.1 400"},
		"no host":               {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"two hosts":             {"GET / HTTP/1.1\r\n" + host + "Host: other\r\n\r\n", "HTTP/1.1 400"},
		"an absolute form":      {"GET http://other/ HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "HTTP/1.1 400"},
		"CONNECT":               {"CONNECT app.example.org:80 HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "HTTP/1.1 400"},
		"a host with a space":   {"GET / HTTP/1.1\r\nHost: app .example.org\r\n\r\n", "HTTP/1.1 400"},
		"an address as host":    {"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400"},
		"a head without an end": {"GET / HTTP/1.1\r\n" + host + "Cookie: " + strings.Repeat("a", 1_600_000) + "\r\n\r\n", "HTTP/1.1 431"},
	} {
		t.Run(name, func(t *testing.T) {
			service := &raw{answer: ok}
			w := newWorld(t, service.serve)
			visitor := w.dial()
			go func() { _, _ = io.WriteString(visitor, c.ask); _ = visitor.CloseWrite() }()
			answer, _ := io.ReadAll(visitor)
			if !strings.HasPrefix(string(answer), c.want) {
				t.Errorf("the visitor got %.200q, want %q", answer, c.want)
			}
			service.mu.Lock()
			defer service.mu.Unlock()
			if len(service.heads) != 0 {
				t.Errorf("the service was asked %q", service.heads)
			}
		})
	}
}

// One host has many spellings, and a large cookie is no attack.
func TestSpellingsOfAHost(t *testing.T) {
	for _, host := range []string{"app.example.org", "APP.Example.ORG", "app.example.org:8080", "app.example.org."} {
		service := &raw{answer: ok}
		w := newWorld(t, service.serve)
		ask := "GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nCookie: " + strings.Repeat("a", 64<<10) + "\r\n\r\n"
		mustContain(t, w.exchange(ask), "200 OK")
		if got := line(service.head(t), "Host"); got != host {
			t.Errorf("the service saw the host %q, want %q", got, host)
		}
	}
}
