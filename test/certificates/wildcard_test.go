package certificates

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// records keeps TXT records for a program that is called by the server.
type records struct {
	dns *services.DNS

	mu   sync.Mutex
	here map[string][]string // guarded by mu; by name
	made int                 // guarded by mu; records that there have been
}

// ServeHTTP implements http.Handler: POST /present/NAME and /cleanup/NAME with the value.
func (r *records) ServeHTTP(_ http.ResponseWriter, in *http.Request) {
	value, _ := io.ReadAll(in.Body)
	what, name, _ := strings.Cut(strings.TrimPrefix(in.URL.Path, "/"), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	switch what {
	case "present":
		r.made++
		r.here[name] = append(r.here[name], string(value))
	case "cleanup":
		r.here[name] = slices.DeleteFunc(r.here[name], func(v string) bool { return v == string(value) })
	}
	r.dns.SetText(name, r.here[name]...)
}

// With a program for DNS one wildcard certificate is for all hosts below the base domain:
// further hosts cost no order, and names that nobody has are refused all the same. The
// records go when they were looked at.
func TestWildcardByDNS(t *testing.T) {
	t.Parallel()
	dns := services.StartDNS(t)
	dns.SetAddress("*."+baseDomain, "127.0.0.1")
	txt := &records{dns: dns, here: map[string][]string{}}
	desk := httptest.NewServer(txt)
	t.Cleanup(desk.Close)
	program := filepath.Join(t.TempDir(), "dns")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec curl -sf --noproxy '*' --data-binary \"$3\" "+desk.URL+"/\"$1\"/\"$2\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ca := services.StartPebble(t, services.PebbleOptions{DNS: dns.Addr})
	at := visited{fmt.Sprintf("127.0.0.1:%d", programs.FreePort(t)), ca.Roots()}
	s := programs.Serve(t, "--https", at.address, "--base-domain", baseDomain,
		"--acme", "on", "--acme-ca", ca.Directory, "--acme-root", ca.Root, "--acme-dns-command", program)
	p := publishing(t, s.API, s)
	p.publish(t, "shop")
	p.publish(t, "cafe")

	shop := at.shows(t, "shop."+baseDomain)
	if len(shop.DNSNames) != 1 || shop.DNSNames[0] != "*."+baseDomain {
		t.Errorf("the certificate is for %q", shop.DNSNames)
	}
	if cafe := at.shows(t, "cafe."+baseDomain); cafe.SerialNumber.Cmp(shop.SerialNumber) != 0 {
		t.Error("another host has another certificate")
	}
	if status, body, err := at.get("cafe."+baseDomain, "/"); err != nil || status != http.StatusOK || body != "hello cafe."+baseDomain {
		t.Errorf("%d %.100s, %v", status, body, err)
	}
	at.refuses(t, "nobody."+baseDomain)
	if base := at.shows(t, baseDomain); len(base.DNSNames) != 1 || base.DNSNames[0] != baseDomain {
		t.Errorf("the certificate of the base domain is for %q", base.DNSNames)
	}
	if got := ca.Issued(); got != 2 {
		t.Errorf("%d certificates were given, want 2", got)
	}
	txt.mu.Lock()
	if left := txt.here["_acme-challenge."+baseDomain]; txt.made < 2 || len(left) > 0 || len(txt.here) != 1 {
		t.Errorf("%d records were made, of %v %q are left", txt.made, txt.here, left)
	}
	txt.mu.Unlock()

	ca.Stop()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	if again := at.shows(t, "cafe."+baseDomain); again.SerialNumber.Cmp(shop.SerialNumber) != 0 {
		t.Error("after a restart the host has another certificate")
	}
}
