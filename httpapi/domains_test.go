package httpapi_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/httpapi"
)

// nameServer has the TXT records that a test has made.
type nameServer struct {
	mu     sync.Mutex
	silent bool
	texts  map[string][]string
}

func (n *nameServer) lookup(_ context.Context, name string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch texts, ok := n.texts[name]; {
	case n.silent:
		return nil, errors.New("timeout")
	case ok:
		return texts, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// A domain is verified when its record is there, and only then; until it is deleted
// nobody else can verify it.
func TestDomains(t *testing.T) {
	dns := &nameServer{texts: map[string][]string{}}
	w := newWorld(t, func(c *httpapi.Config) { c.LookupTXT = dns.lookup })
	ann, bob := w.person("ann", "user"), w.person("bob", "user")
	made := ann.do("POST", path("domains"), fields{"host": "Shop.Example.com"}).want(201)
	id := made.id("domain_id")
	if made.text("host") != "shop.example.com" || made.text("proof_name") != "_tunnox.shop.example.com" || made.text("status") != "unverified" || made.Body["verified_at"] != nil {
		t.Errorf("made as %s", made.Text)
	}
	other := bob.do("POST", path("domains"), fields{"host": "shop.example.com"}).want(201)
	if value := made.text("proof_value"); !strings.HasPrefix(value, "tunnox-domain=") || len(value) < 40 || value == other.text("proof_value") {
		t.Errorf("the proofs are %q and %q", value, other.text("proof_value"))
	}
	for _, record := range []string{"", "v=spf1 -all", other.text("proof_value"), made.text("proof_value") + "x"} {
		if record != "" {
			dns.texts["_tunnox.shop.example.com."] = []string{record}
		}
		if a := ann.do("POST", path("domains", id, "verify"), nil); a.Status != 409 || a.Body["code"] != "domain_not_proved" || !strings.Contains(a.Text, "_tunnox.shop.example.com") {
			t.Errorf("with the record %q: %d %s", record, a.Status, a.Text)
		}
	}
	dns.silent = true
	if a := ann.do("POST", path("domains", id, "verify"), nil); a.Status != 409 || !strings.Contains(a.Text, "do not answer") {
		t.Errorf("while no name server answers: %d %s", a.Status, a.Text)
	}
	dns.silent = false
	dns.texts["_tunnox.shop.example.com."] = []string{"v=spf1 -all", made.text("proof_value"), other.text("proof_value")}
	bob.do("POST", path("domains", id, "verify"), nil).want(404)
	if a := ann.do("POST", path("domains", id, "verify"), nil).want(200); a.text("status") != "verified" || a.Body["verified_at"] == nil || a.id("domain_id") != id || a.text("host") != "shop.example.com" {
		t.Errorf("verified as %s", a.Text)
	}
	delete(dns.texts, "_tunnox.shop.example.com.") // the record is needed once
	ann.do("POST", path("domains", id, "verify"), nil).want(200)
	dns.texts["_tunnox.shop.example.com."] = []string{other.text("proof_value")}
	if a := bob.do("POST", path("domains", other.id("domain_id"), "verify"), nil); a.Status != 409 || a.Body["code"] != "domain_taken" {
		t.Errorf("a second proof: %d %s", a.Status, a.Text)
	}

	if list := ann.do("GET", path("domains"), nil).want(200); strings.Count(list.Text, "domain_id") != 1 || !strings.Contains(list.Text, "verified") {
		t.Errorf("the list is %s", list.Text)
	}
	if list := w.do("GET", path("domains"), nil).want(200); strings.Count(list.Text, "domain_id") != 2 {
		t.Errorf("an admin's list is %s", list.Text)
	}
	bob.do("GET", path("domains", id), nil).want(404)
	bob.do("DELETE", path("domains", id), nil).want(404)
	for _, wrong := range []string{"shop", "a..b", "*.example.com", strings.Repeat("a", 64) + ".example.com", "a b.example.com", "192.0.2.1:80"} {
		if a := ann.do("POST", path("domains"), fields{"host": wrong}); a.Status != 422 || !strings.Contains(a.Text, "body.host") {
			t.Errorf("%q: %d %s", wrong, a.Status, a.Text)
		}
	}
	ann.do("DELETE", path("domains", id), nil).want(204)
	ann.do("GET", path("domains", id), nil).want(404)
	bob.do("POST", path("domains", other.id("domain_id"), "verify"), nil).want(200)
}
