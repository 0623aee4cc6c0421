package proxyheader

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func at(text string) netip.AddrPort {
	if text == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(text)
}

// What is written is read again, as somebody else's library reads it too, and what the
// visitor sends behind it is left where it is.
func TestHeaders(t *testing.T) {
	for _, c := range []struct{ from, to, wantFrom, wantTo string }{
		{"192.0.2.7:41000", "198.51.100.1:443", "", ""},
		{"[2001:db8::7]:41000", "[2001:db8::1]:443", "", ""},
		{"[2001:db8::7]:41000", "198.51.100.1:443", "[2001:db8::7]:41000", "198.51.100.1:443"},
		{"[::ffff:192.0.2.7]:41000", "198.51.100.1:443", "192.0.2.7:41000", "198.51.100.1:443"},
		{"192.0.2.7:1", "0.0.0.0:0", "", ""},
		{"", "198.51.100.1:443", "-", "-"},
		{"", "", "-", "-"},
	} {
		for _, version := range []string{V1, V2} {
			text, err := Header{at(c.from), at(c.to)}.Bytes(version)
			if err != nil {
				t.Fatalf("%v %s: %v", c, version, err)
			}
			in := bytes.NewReader(append(text, "hello"...))
			got, err := Read(in)
			rest, _ := io.ReadAll(in)
			if err != nil || string(rest) != "hello" {
				t.Errorf("%v %s: %v, and %q is left", c, version, err, rest)
			}
			want := Header{at(c.from), at(c.to)}
			switch {
			case c.wantFrom == "-":
				want = Header{}
			case c.wantFrom != "":
				want = Header{at(c.wantFrom), at(c.wantTo)}
			}
			if got != want {
				t.Errorf("%v %s is read as %v", c, version, got)
			}
		}
	}
	if _, err := (Header{}).Bytes("v3"); err == nil {
		t.Error("there is a version 3")
	}
}

func TestWhatIsNoHeader(t *testing.T) {
	v2 := string(proxyproto.SIGV2)
	for _, c := range []struct {
		text string
		none bool
	}{
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"SSH-2.0-OpenSSH_9.6\r\n", true},
		{"PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", true},
		{"", false},
		{"PROXY", false},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", false},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", false},
		{"PROXY TCP4 ::1 ::1 1 2\r\n", false},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", false},
		{"PROXY T\n\nxxxxxxxxxxxxxxx\r\n", false},
		{"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", false},
		{v2 + "\x21\x11\x00\x05abcde", false},
		{v2 + "\x21\x11\xff\xff" + strings.Repeat("x", 100), false},
		{v2 + "\x31\x11\x00\x0cabcdabcdabcd", false},
		{v2 + "\x21", false},
	} {
		if h, err := Read(strings.NewReader(c.text)); err == nil || errors.Is(err, ErrNone) != c.none {
			t.Errorf("%.40q: %v, %v", c.text, h, err)
		}
	}
}

// A header that does not come ends the wait, and only networks that were named are asked.
func TestListener(t *testing.T) {
	for name, c := range map[string]struct {
		trust   string
		says    string
		from    string // "" = the peer's own
		hears   string
		refused bool
	}{
		"a proxy":             {"127.0.0.1/32", "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\nhello", "192.0.2.7:41000", "hello", false},
		"a proxy's own check": {"127.0.0.1/32", "PROXY UNKNOWN\r\nhello", "", "hello", false},
		"somebody else":       {"192.0.2.0/24", "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\nhello", "", "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\nhello", false},
		"a proxy without one": {"127.0.0.1/32", "hello, I am nobody\r\n", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			l := &Listener{Listener: tcp, From: []netip.Prefix{netip.MustParsePrefix(c.trust)}}
			peer, err := net.Dial("tcp", tcp.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			conn, err := l.Accept() // before the peer has said anything
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(peer, c.says); err != nil {
				t.Fatal(err)
			}
			_ = peer.(*net.TCPConn).CloseWrite()
			want := c.from
			if want == "" {
				want = peer.LocalAddr().String()
			}
			if got := conn.RemoteAddr().String(); got != want {
				t.Errorf("it is from %s, want %s", got, want)
			}
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if text, err := io.ReadAll(conn); string(text) != c.hears || (err != nil) != c.refused {
				t.Errorf("heard %q, %v", text, err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	for _, version := range []string{V1, V2} {
		for _, h := range []Header{{}, {at("192.0.2.7:1"), at("192.0.2.8:2")}, {at("[::1]:1"), at("[::2]:2")}} {
			text, err := h.Bytes(version)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := Read(bytes.NewReader(text))
		if err != nil || !h.From.IsValid() {
			return
		}
		again, err := h.Bytes(V2)
		if err != nil {
			t.Fatalf("%v cannot be written: %v", h, err)
		}
		if got, err := Read(bytes.NewReader(again)); err != nil || got != h {
			t.Errorf("%v is read as %v, %v", h, got, err)
		}
	})
}
