package ingress_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/basicauth"
	"github.com/tunnox-net/tunnox/ingress"
)

// rewritten is a site that changes all that a site can change.
func rewritten(w *world) {
	w.site.HostHeader, w.site.StripPrefix = "localhost:3000", "/app"
	w.site.Request = ingress.HeaderChanges{Remove: []string{"X-Old", "Forwarded"}, Set: map[string]string{"X-New": "a, b", "authorization": "Bearer abc"}}
	w.site.Response = ingress.HeaderChanges{Remove: []string{"X-Powered-By"}, Set: map[string]string{"Cache-Control": "no-store"}}
}

func TestRewrittenRequestsAndAnswers(t *testing.T) {
	for _, upgrade := range []bool{false, true} {
		service := &raw{answer: strings.Replace(ok, "\r\n", "\r\nX-Powered-By: x\r\nCache-Control: public\r\nX-Stays: 1\r\n", 1)}
		w := newWorld(t, service.serve)
		rewritten(w)
		ask := get("/app/x?q=/app", "X-Old: 1", "Authorization: Basic eDp5", "X-Forwarded-Prefix: /evil")
		if upgrade {
			ask = strings.Replace(upgradeTo("websocket", "/app/x?q=/app"), "\r\n", "\r\nX-Old: 1\r\nX-Forwarded-Prefix: /evil\r\n", 1)
		}
		answer := w.exchange(ask)
		mustContain(t, answer, "200 OK", "Cache-Control: no-store", "X-Stays: 1")
		if strings.Contains(answer, "X-Powered-By") || strings.Contains(answer, "public") {
			t.Errorf("the visitor got %q", answer)
		}
		head := service.head(t)
		if !strings.HasPrefix(head, "GET /x?q=/app HTTP/1.1\r\n") {
			t.Errorf("the service was asked %q", head)
		}
		for name, want := range map[string]string{"Host": "localhost:3000", "X-New": "a, b", "Authorization": "Bearer abc", "X-Old": "", "Forwarded": "",
			"X-Forwarded-Host": "app.example.org", "X-Forwarded-Prefix": "/app"} {
			if got := line(head, name); got != want {
				t.Errorf("the service got %s %q, want %q (upgrade: %v)", name, got, want, upgrade)
			}
		}
	}
}

// A prefix goes on the borders of segments, and what follows stays as it was escaped.
func TestStripPrefix(t *testing.T) {
	for asked, want := range map[string]string{"/app": "/", "/app/": "/", "/app?x": "/?x", "/app/a%2Fb": "/a%2Fb", "/apple": "/apple", "/": "/", "/x/app/": "/x/app/",
		"/app//x": "//x", "/%61pp/x": "/x", "/APP/x": "/APP/x"} {
		service := &raw{answer: ok}
		w := newWorld(t, service.serve)
		w.site.StripPrefix = "/app"
		mustContain(t, w.exchange(get(asked, "X-Forwarded-Prefix: /evil")), "200 OK")
		head := service.head(t)
		if got := strings.SplitN(head, " ", 3)[1]; got != want {
			t.Errorf("%s is asked for as %s, want %s", asked, got, want)
		}
		if got := line(head, "X-Forwarded-Prefix"); got != map[bool]string{true: "", false: "/app"}[asked == want] {
			t.Errorf("%s has the prefix %q", asked, got)
		}
	}
}

// What leads to a mapping at a service leads to it here: escapes and dots in a path do
// not walk around the rules of the mapping that has it.
func TestPathsAreRoutedAsServicesReadThem(t *testing.T) {
	for asked, want := range map[string]string{"/admin": "/admin", "/%61dmin": "/admin", "/x/../admin/": "/admin", "//admin": "/admin", "/x/%2e%2e/admin": "/admin",
		"/x%2f..%2fadmin": "/admin", "/./": "/", "/../..": "/", "/a%2520": "/a%20"} {
		w := newWorld(t, (&raw{answer: ok}).serve)
		mustContain(t, w.exchange(get(asked)), "200 OK")
		if w.found != want {
			t.Errorf("%s is looked up as %q, want %q", asked, w.found, want)
		}
	}
}

// The cookie is set with the answer and not with an interim one, stays away from the
// service, and has the secure name behind a proxy that ends TLS.
func TestAccessCookie(t *testing.T) {
	salt := basicauth.NewSalt("test")
	service := &raw{answer: "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + ok}
	w := newWorld(t, service.serve)
	w.site.Access.Logins = map[string]string{"ann": basicauth.Derive("x", salt).Seal(salt)}
	answer := w.exchange(get("/", "Authorization: Basic YW5uOng="))
	interim, final, _ := strings.Cut(answer, "\r\n\r\n")
	if strings.Contains(interim, "Set-Cookie") || strings.Count(final, "Set-Cookie: tunnox-access-1=1.") != 1 || !strings.Contains(final, "; HttpOnly; SameSite=Lax") || strings.Contains(final, "Secure") {
		t.Errorf("the visitor got %q", answer)
	}
	if head := service.head(t); line(head, "Authorization") != "" {
		t.Errorf("the service got %q", head)
	}
	secure := w.exchangeFrom("127.0.0.2", get("/", "Authorization: Basic YW5uOng=", "X-Forwarded-Proto: https"))
	mustContain(t, secure, "Set-Cookie: __Host-tunnox-access-1=1.", "; Secure")
}

// Nobody comes in by an address that is not known, and a page of ours says why.
func TestNotAdmitted(t *testing.T) {
	service := &raw{answer: ok}
	w := newWorld(t, service.serve)
	w.site.Access.Admits = func(from netip.Addr) bool { return from == netip.MustParseAddr("192.0.2.1") }
	mustContain(t, w.exchange(get("/")), "HTTP/1.1 403", "Tunnox-Error: access_denied")
	mustContain(t, w.exchange(get("/", "X-Forwarded-For: 192.0.2.1")), "HTTP/1.1 403")
	mustContain(t, w.exchangeFrom("127.0.0.2", get("/", "X-Forwarded-For: 192.0.2.1, what")), "HTTP/1.1 403")
	mustContain(t, w.exchangeFrom("127.0.0.2", get("/", "X-Forwarded-For: 192.0.2.1")), "HTTP/1.1 200")
	service.head(t) // it was asked once
}
