package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

func TestListeningIsForLoopbackUnlessAllowed(t *testing.T) {
	for _, tt := range []struct {
		entries string
		at      string
		want    bool
	}{
		{"", "127.0.0.1:8080", true},
		{"", "127.9.9.9:1024", true},
		{"", "[::1]:65535", true},
		{"", "[::ffff:127.0.0.1]:8080", true},
		{"", "127.0.0.1:1023", false},
		{"", "127.0.0.1:22", false},
		{"", "0.0.0.0:8080", false},
		{"", "[::]:8080", false},
		{"", "192.168.1.5:8080", false},
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.1:8080", true},
		{"192.168.1.5:8000-8100", "192.168.1.5:8050", true},
		{"192.168.1.5:8000-8100", "192.168.1.5:8101", false},
		{"192.168.0.0/16:*", "192.168.7.7:1", true},
		{"192.168.0.0/16:*", "10.0.0.1:8080", false},
		{"0.0.0.0/0:*", "0.0.0.0:8080", false}, // a network of addresses is not all of the machine's
		{"0.0.0.0/0:*", "192.168.1.5:8080", true},
		{"0.0.0.0:8080", "0.0.0.0:8080", true},
		{"0.0.0.0:8080", "0.0.0.0:8081", false},
		{"0.0.0.0:8080", "[::]:8080", false},
		{"[::]:8080", "[::]:8080", true},
		{"*", "0.0.0.0:1", true},
		{"*:443", "[::]:443", true},
		{"*:443", "[::]:444", false},
		{"127.0.0.1:80,10.0.0.1:*", "10.0.0.1:9", true},
	} {
		var entries []string
		if tt.entries != "" {
			entries = strings.Split(tt.entries, ",")
		}
		l, err := ParseListening(entries)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Allows(netip.MustParseAddrPort(tt.at)); got != tt.want {
			t.Errorf("with %q, listening on %s: %v", tt.entries, tt.at, got)
		}
	}
}

func TestListenEntriesThatAreNone(t *testing.T) {
	_, err := ParseListening([]string{"8080", "localhost:80", "127.0.0.1:0", "10.0.0.1/8:1", "127.0.0.1:80"})
	if err == nil {
		t.Fatal("they were taken")
	}
	for _, entry := range []string{`"8080"`, `"localhost:80"`, `"127.0.0.1:0"`, `"10.0.0.1/8:1"`} {
		if !strings.Contains(err.Error(), entry) {
			t.Errorf("%s is not named: %v", entry, err)
		}
	}
	if strings.Contains(err.Error(), `listen entry "127.0.0.1:80"`) {
		t.Errorf("a right one is named: %v", err)
	}
}

// FuzzParseListening: no entry makes the parser panic, and none that is taken makes it
// allow more than it says.
func FuzzParseListening(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:80", "*", "[::]:*", "10.0.0.0/8:1-2", "x", "0.0.0.0/0:*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		l, err := ParseListening([]string{entry})
		if err != nil {
			return
		}
		if !strings.HasPrefix(strings.TrimSpace(entry), "*") && l.Allows(netip.MustParseAddrPort("0.0.0.0:8080")) && !strings.Contains(entry, "0.0.0.0") {
			t.Errorf("%q allows all addresses", entry)
		}
	})
}

// Whatever the server says, the agent does not listen where its owner has not allowed
// it, and says so; the rest of the configuration holds.
func TestTheServerCannotHaveItListenAnywhere(t *testing.T) {
	s := newScript(t)
	own := "127.0.0.1:" + freePort(t)
	all := "0.0.0.0:" + freePort(t)
	if got := s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, own), tcp(2, all), tcp(3, "127.0.0.1:80")}}); got != "1 2:address_denied 3:address_denied" {
		t.Errorf("acknowledged %q", got)
	}
	s.through(own)
	if conn, err := net.Dial("tcp", strings.Replace(all, "0.0.0.0", "127.0.0.1", 1)); err == nil {
		conn.Close()
		t.Error("it listens on all addresses")
	}
	allowed, err := ParseListening([]string{all})
	if err != nil {
		t.Fatal(err)
	}
	s = newScript(t, func(c *Config) { c.Listening = allowed })
	if got := s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(2, all)}}); got != "1" {
		t.Errorf("with --allow-listen it acknowledged %q", got)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Services of the agent's own machine can be denied too.
func TestAPolicyWithoutLoopback(t *testing.T) {
	for entries, want := range map[string][3]bool{
		"":                             {},
		"127.0.0.1:5432":               {true, false, false},
		"localhost:5432":               {true, false, false},
		"10.0.0.5:5432":                {false, false, true},
		"127.0.0.1:5432,10.0.0.5:5432": {true, false, true},
	} {
		p, err := ParsePolicy(strings.FieldsFunc(entries, func(r rune) bool { return r == ',' }))
		if err != nil {
			t.Fatal(err)
		}
		p = p.WithoutLoopback()
		host := ""
		if strings.Contains(entries, "localhost") {
			host = "localhost"
		}
		got := [3]bool{p.Allows(host, netip.MustParseAddr("127.0.0.1"), 5432), p.Allows(host, netip.MustParseAddr("127.0.0.1"), 22),
			p.Allows("", netip.MustParseAddr("10.0.0.5"), 5432)}
		if got != want {
			t.Errorf("%q allows %v, want %v", entries, got, want)
		}
	}
}
