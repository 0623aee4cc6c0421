package httpapi_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/httpapi"
)

// TestOnlyOurProxiesSayForWhomTheyAsk: what a stranger writes into a header neither
// hides them nor blames another.
func TestOnlyOurProxiesSayForWhomTheyAsk(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	})
	for name, tt := range map[string]struct {
		from    string
		headers []string
		want    string
	}{
		"nobody's proxy":                    {"192.0.2.1:5", []string{"X-Forwarded-For", "198.51.100.7"}, "192.0.2.1:5"},
		"no header":                         {"10.0.0.1:5", nil, "10.0.0.1:5"},
		"our proxy":                         {"10.0.0.1:5", []string{"X-Forwarded-For", "198.51.100.7"}, "198.51.100.7"},
		"our proxy, as mapped":              {"[::ffff:10.0.0.1]:5", []string{"X-Forwarded-For", "198.51.100.7:80"}, "198.51.100.7:80"},
		"a stranger wrote the left":         {"10.0.0.1:5", []string{"X-Forwarded-For", "203.0.113.1, 198.51.100.7"}, "198.51.100.7"},
		"two of ours":                       {"10.0.0.1:5", []string{"X-Forwarded-For", "203.0.113.1, 198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
		"several lines":                     {"10.0.0.1:5", []string{"X-Forwarded-For", "198.51.100.7", "X-Forwarded-For", "10.0.0.2"}, "198.51.100.7"},
		"all are ours":                      {"10.0.0.1:5", []string{"X-Forwarded-For", "10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"what is no address":                {"10.0.0.1:5", []string{"X-Forwarded-For", "198.51.100.7, unknown"}, "10.0.0.1:5"},
		"a quote that a stranger left open": {"10.0.0.1:5", []string{"X-Forwarded-For", `"203.0.113.1, 198.51.100.7`}, "198.51.100.7"},
		"a zone":                            {"10.0.0.1:5", []string{"X-Forwarded-For", "fe80::1%" + strings.Repeat("x", 3000)}, "10.0.0.1:5"},
		"Forwarded":                         {"10.0.0.1:5", []string{"Forwarded", `for=203.0.113.1;by=x, proto=https;For="[2001:db8::7]:4711"`}, "[2001:db8::7]:4711"},
		"Forwarded by two of ours":          {"10.0.0.1:5", []string{"Forwarded", `for="[2001:db8::7]", for="[2001:db8:1::1]"`}, "[2001:db8::7]"},
		"Forwarded by a name":               {"10.0.0.1:5", []string{"Forwarded", `for=198.51.100.7, for=_hidden`}, "10.0.0.1:5"},
		"Forwarded with a comma in quotes":  {"10.0.0.1:5", []string{"Forwarded", `for=198.51.100.7;by="a,b"`}, "198.51.100.7"},
		"Forwarded with an open quote":      {"10.0.0.1:5", []string{"Forwarded", `for="203.0.113.1, for="[2001:db8::7]";by=x`}, "[2001:db8::7]"},
		"both, which agree":                 {"10.0.0.1:5", []string{"X-Forwarded-For", "198.51.100.7", "Forwarded", "for=198.51.100.7"}, "198.51.100.7"},
		"both, one of them a stranger's":    {"10.0.0.1:5", []string{"X-Forwarded-For", "198.51.100.7", "Forwarded", "for=203.0.113.1"}, "10.0.0.1:5"},
	} {
		user := w.user(strings.NewReplacer(" ", "-", "'", "", ",", "").Replace(strings.ToLower(name)))
		r := w.request("POST", "/api/v1/users/"+formatID(user)+"/disable", nil, "Authorization", "Bearer "+apiKey)
		r.RemoteAddr = tt.from
		for i := 0; i+1 < len(tt.headers); i += 2 {
			r.Header.Add(tt.headers[i], tt.headers[i+1])
		}
		w.send(r).want(200)
		if got := w.do("GET", "/api/v1/users/"+formatID(user)+"/history", nil).want(200).Text; !strings.Contains(got, `"source":"`+tt.want+`"`) {
			t.Errorf("%s: the audit does not say %q: %s", name, tt.want, got[strings.LastIndex(got, `"source"`):])
		}
	}
}

// TestStrangersBehindAProxyAreToldApart: they pay for themselves.
func TestStrangersBehindAProxyAreToldApart(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
		c.RateLimit, c.RateBurst = 0.001, 2
	})
	ask := func(forwarded string) int {
		r := w.request("GET", "/api/v1/users", nil, "Authorization", "Bearer guess", "X-Forwarded-For", forwarded)
		r.RemoteAddr = "10.0.0.1:5"
		return w.send(r).Status
	}
	for _, want := range []int{401, 401, 429} {
		if got := ask("203.0.113.9, 198.51.100.7"); got != want {
			t.Errorf("answered %d, want %d", got, want)
		}
	}
	if got := ask("198.51.100.7, 198.51.100.8"); got != 401 {
		t.Errorf("another one behind the proxy: answered %d", got)
	}
}
