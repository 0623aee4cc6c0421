package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

func TestRateOfOneCallerIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *httpapi.Config) {
		c.RateLimit, c.RateBurst = 100, 200
		c.Clock = func() time.Time { return now }
	})
	for i := range 200 {
		got := w.do("GET", "/api/v1/users", nil).want(200)
		if want := fmt.Sprintf(`"caller";r=%d;t=`, 199-i); got.Header.Get("RateLimit")[:len(want)] != want {
			t.Fatalf("request %d: RateLimit is %s, want %s", i, got.Header.Get("RateLimit"), want)
		}
		if got := got.Header.Get("RateLimit-Policy"); got != `"caller";q=200;w=2` {
			t.Fatalf("RateLimit-Policy is %s", got)
		}
	}
	got := w.do("GET", "/api/v1/users", nil)
	got.fault(429, "too_many_requests")
	if got.Header.Get("Retry-After") != "1" || got.Header.Get("RateLimit") != `"caller";r=0;t=2` {
		t.Errorf("headers of the refusal: %v", got.Header)
	}
	// Others are not concerned: another caller, strangers, probes.
	w.send(w.request("GET", "/api/v1/users", nil, "Authorization", "Bearer another")).want(200)
	w.send(w.request("GET", "/api/v1/users", nil)).want(401)
	w.send(w.request("GET", "/ready", nil)).want(200)
	now = now.Add(10 * time.Millisecond)
	w.do("GET", "/api/v1/users", nil).want(200)
	w.do("GET", "/api/v1/users", nil).want(429)
}

func TestGuessesOfKeysAreBoundedByAddress(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *httpapi.Config) {
		c.RateLimit, c.RateBurst = 10, 20
		c.Clock = func() time.Time { return now }
	})
	guess := func(i int, from string) *answer {
		r := w.request("GET", []string{"/api/v1/users", "/api/v1/nothing"}[i%2], nil, "Authorization", fmt.Sprint("Bearer guess", i))
		r.RemoteAddr = from
		return w.send(r)
	}
	for i := range 20 {
		guess(i, "192.0.2.9:1").want(401)
	}
	if got := guess(20, "192.0.2.9:2"); got.Status != 429 || got.Header.Get("Retry-After") == "" {
		t.Errorf("guess 21 from one address: %d %v", got.Status, got.Header)
	}
	guess(21, "192.0.2.9:2").want(429)
	guess(22, "192.0.2.10:2").want(401)
	r := w.request("GET", "/api/v1/users", nil, "Authorization", "Bearer "+apiKey)
	r.RemoteAddr = "192.0.2.9:3"
	w.send(r).want(http.StatusOK) // who has a key does not pay for a neighbour
}

// TestProbesHaveABound: nobody makes the server check its parts without end; who probes
// as probers do is never refused.
func TestProbesHaveABound(t *testing.T) {
	w := newWorld(t)
	ask := func(from string) int {
		r := w.request("GET", "/ready", nil)
		r.RemoteAddr = from
		return w.send(r).Status
	}
	refused := 0
	for range 300 {
		switch status := ask("192.0.2.66:1"); status {
		case 200:
		case 429:
			refused++
		default:
			t.Fatalf("status %d", status)
		}
	}
	if refused == 0 {
		t.Error("300 probes at once were all answered")
	}
	if status := ask("192.0.2.7:1"); status != 200 {
		t.Errorf("another prober gets %d", status)
	}
}
