package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStatsAreShown(t *testing.T) {
	var asked []string
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.String())
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		}
	}
	traffic := `{"range":"1h","from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:03:00Z","step_seconds":60,` +
		`"total":{"to_target":1500000,"to_source":4,"total":1500004,"connections":3},"buckets":[` +
		`{"from":"2026-01-01T00:00:00Z","to_target":0,"to_source":0,"total":0,"connections":0},` +
		`{"from":"2026-01-01T00:01:00Z","to_target":0,"to_source":4,"total":4,"connections":1},` +
		`{"from":"2026-01-01T00:02:00Z","to_target":1500000,"to_source":0,"total":1500000,"connections":2}]}`
	for _, tt := range []struct {
		args       []string
		body, path string
		says       []string
	}{
		{[]string{"system"}, `{"users":3,"current_month":{"total":7}}`, "/api/v1/stats/system", []string{"users", "current_month.total", "7"}},
		{[]string{"user", "5"}, `{"user_id":5,"monthly_traffic_limit":null}`, "/api/v1/stats/users/5", []string{"unlimited"}},
		{[]string{"client", "6"}, `{"client_id":6}`, "/api/v1/stats/clients/6", []string{"client_id"}},
		{[]string{"users"}, `{"items":[{"user_id":5,"username":"ann","current_month_traffic":12,"connections_open":1}],"next":null}`,
			"/api/v1/stats/users?after=0&limit=500", []string{"USERNAME", "ann", "12", "unlimited"}},
		{[]string{"traffic", "--range", "1h", "--client", "6"}, traffic, "/api/v1/stats/traffic?client_id=6&range=1h", []string{"TO TARGET", "1500000"}},
		{[]string{"traffic", "--chart"}, traffic, "/api/v1/stats/traffic?range=24h",
			[]string{strings.Repeat("█", chartWidth), "▏", "1.5 MB", "4 B", "1.5 MB in 1h (times are UTC): 1.5 MB to targets, 4 B to sources, 3 connections"}},
		{[]string{"traffic", "--json"}, traffic, "/api/v1/stats/traffic?range=24h", []string{`"step_seconds": 60`}},
	} {
		asked = nil
		code, stdout, stderr := tunnox(t, answer(tt.body), append([]string{"stats"}, tt.args...)...)
		if code != 0 || len(asked) != 1 || asked[0] != tt.path {
			t.Errorf("%v: exit code %d, asked %v, said %s", tt.args, code, asked, stderr)
		}
		for _, want := range tt.says {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: %q does not say %q", tt.args, stdout, want)
			}
		}
		for line := range strings.Lines(stdout) {
			if utf8.RuneCountInString(line) > 81 {
				t.Errorf("%v: a line of %d characters: %q", tt.args, utf8.RuneCountInString(line), line)
			}
		}
	}
	if code, _, stderr := tunnox(t, answer("{}"), "stats", "traffic", "--user", "1", "--client", "2"); code != exitUsage {
		t.Errorf("two subjects: %d %s", code, stderr)
	}
}

func TestBytesForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1 << 40: "1.1 TB", 1 << 62: "4611.7 PB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
