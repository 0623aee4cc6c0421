package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The first rule that matches decides, and a refusal names its line.
func TestFirstRuleDecides(t *testing.T) {
	office, err := ParseHours("mon-fri 08:00-18:00")
	if err != nil {
		t.Fatal(err)
	}
	p, err := PolicyOf("/etc/tunnox/policy.yaml", []Rule{
		{Service: "10.0.0.13:*", Line: 2},
		{Allow: true, Service: "10.0.0.0/8:443", Line: 3},
		{Allow: true, Service: "db.internal:5000-5010", Protocols: []string{"tcp", "socks5"}, Line: 4},
		{Allow: true, Service: "127.0.0.1:22", Hours: []Hours{office}, Line: 5},
		{Service: "unix:/run/secret.sock", Line: 6},
		{Allow: true, Service: "unix:/run/app.sock", Protocols: []string{"http"}, Line: 7},
		{Service: "file:/srv/www/private", Line: 8},
		{Allow: true, Service: "file:/srv/www", Line: 9},
		{Allow: true, Service: "169.254.169.254:80", Protocols: []string{"udp"}, Line: 10},
		{Service: "*", Protocols: []string{"socks5"}, Line: 11},
		{Allow: true, Service: "*", Line: 12},
	})
	if err != nil {
		t.Fatal(err)
	}
	monday, sunday := time.Date(2026, 11, 30, 9, 0, 0, 0, time.Local), time.Date(2026, 11, 29, 9, 0, 0, 0, time.Local)
	for _, c := range []struct {
		protocol, host, address string
		port                    uint16
		at                      string
		now                     time.Time
		why                     string // "" = allowed
	}{
		{"tcp", "", "10.0.0.13", 443, "", monday, "policy.yaml, line 2"},
		{"tcp", "", "::ffff:10.0.0.13", 443, "", monday, "policy.yaml, line 2"},
		{"tcp", "", "64:ff9b::a00:d", 443, "", monday, "policy.yaml, line 2"},
		{"socks5", "", "10.0.0.14", 443, "", monday, ""},
		{"socks5", "", "10.0.0.14", 444, "", monday, "policy.yaml, line 11"},
		{"socks5", "db.internal", "192.0.2.1", 5010, "", monday, ""},
		{"http", "db.internal", "192.0.2.1", 5010, "", monday, ""}, // by line 12
		{"tcp", "", "127.0.0.1", 22, "", monday, ""},
		{"socks5", "", "127.0.0.1", 22, "", monday, ""},
		{"socks5", "", "127.0.0.1", 22, "", sunday, "policy.yaml, line 11"},
		{"udp", "", "169.254.169.254", 80, "", monday, ""},
		{"tcp", "", "169.254.169.254", 80, "", monday, "no rule of policy.yaml allows it"}, // * does not name it
		{"socks5", "", "169.254.169.254", 80, "", monday, "policy.yaml, line 11"},
		{"http", "", "", 0, "unix:/run/app.sock", monday, ""},
		{"tcp", "", "", 0, "unix:/run/app.sock", monday, "no rule of policy.yaml allows it"},
		{"http", "", "", 0, "unix:/run/secret.sock", monday, "policy.yaml, line 6"},
		{"http", "", "", 0, "file:/srv/www/a", monday, ""},
		{"http", "", "", 0, "file:/srv/www/private/a", monday, "policy.yaml, line 8"},
		{"http", "", "", 0, "file:/etc", monday, "no rule of policy.yaml allows it"},
		{"socks5", "", "", 0, "unix:/run/x", monday, "policy.yaml, line 11"},
	} {
		q := question{protocol: c.protocol, host: c.host, port: c.port, now: c.now}
		if c.at != "" {
			at, _ := parsePlace(c.at)
			q.at = &at
		} else {
			q.addr = netip.MustParseAddr(c.address)
			if q.host == "" {
				q.host = c.address
			}
		}
		if v := p.ask(q); v.allowed != (c.why == "") || v.why != c.why {
			t.Errorf("%+v: %+v, want %q", c, v, c.why)
		}
	}
	none, err := PolicyOf("policy.yaml", nil)
	if err != nil || none.Allows("127.0.0.1", netip.MustParseAddr("127.0.0.1"), 80) {
		t.Errorf("a list without rules allows loopback, %v", err)
	}
	for _, wrong := range []Rule{{Service: "10.0.0.5"}, {Service: ""}, {Service: "unix:x"}, {Service: "*", Protocols: []string{"tpc"}}} {
		wrong.Line = 7
		if _, err := PolicyOf("p.yaml", []Rule{wrong}); err == nil || !strings.Contains(err.Error(), "p.yaml, line 7") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

func TestHours(t *testing.T) {
	monday := time.Date(2026, 11, 30, 0, 0, 0, 0, time.Local)
	for text, at := range map[string]map[string]bool{
		"mon-fri 08:00-18:00": {"0 07:59": false, "0 08:00": true, "0 17:59": true, "0 18:00": false, "4 12:00": true, "5 12:00": false, "6 12:00": false},
		"sat-mon 10:00-12:00": {"0 10:00": true, "1 10:00": false, "5 11:59": true, "6 10:00": true},
		"Fri 22:00-06:00":     {"4 21:59": false, "4 22:00": true, "5 05:59": true, "5 06:00": false, "5 22:00": false, "4 05:00": false},
		"00:00-24:00":         {"0 00:00": true, "6 23:59": true},
		"22:00-06:00":         {"0 23:00": true, "0 05:00": true, "0 12:00": false},
	} {
		h, err := ParseHours(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		for when, want := range at {
			clock, err := time.Parse("15:04", when[2:])
			if err != nil {
				t.Fatal(err)
			}
			now := monday.AddDate(0, 0, int(when[0]-'0')).Add(time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute)
			if got := h.has(now); got != want {
				t.Errorf("%q at %s %s: %v", text, now.Weekday(), when[2:], got)
			}
		}
	}
	for _, wrong := range []string{"", "mon", "mon-fri", "mon-fry 08:00-18:00", "mon 8-18", "mon 08:00", "mon 08:00-08:00", "mon 24:00-01:00", "mon 08:00-25:00", "mon tue 08:00-18:00"} {
		if _, err := ParseHours(wrong); err == nil {
			t.Errorf("%q is a time of the week", wrong)
		}
	}
}
