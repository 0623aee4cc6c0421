package certificates

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// A host gets its certificate when its first visitor comes, and keeps it over a restart
// while the authority is away. A name that nobody has costs nothing: the authority never
// hears of it.
func TestEmbeddedServerGetsCertificates(t *testing.T) {
	for kind, options := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ports := programs.FreePorts(t, 2)
			dns := services.StartDNS(t)
			dns.SetAddress("*."+baseDomain, "127.0.0.1")
			dns.SetAddress(baseDomain, "127.0.0.1")
			const api = "tunnox.example.net"
			dns.SetAddress(api, "127.0.0.1")
			ca := services.StartPebble(t, options(ports[0], ports[1], dns.Addr))
			at := visited{fmt.Sprintf("127.0.0.1:%d", ports[1]), ca.Roots()}
			clear := fmt.Sprintf("127.0.0.1:%d", ports[0])
			s := programs.Serve(t, "--http", clear, "--https", at.address, "--base-domain", baseDomain, "--api-host", api,
				"--acme", "ops@example.org", "--acme-ca", ca.Directory, "--acme-root", ca.Root)
			p := publishing(t, s.API, s)
			p.publish(t, "shop", "public_path", "/app")

			shop := "shop." + baseDomain
			first := at.shows(t, shop)
			if len(first.DNSNames) != 1 || first.DNSNames[0] != shop || time.Until(first.NotAfter) < 80*24*time.Hour {
				t.Errorf("the certificate is for %q and ends %v", first.DNSNames, first.NotAfter)
			}
			programs.Eventually(t, limit, func() error {
				status, body, err := at.get(shop, "/app")
				if err == nil && (status != http.StatusOK || !strings.HasPrefix(body, "hello shop.")) {
					err = fmt.Errorf("%d %.100s", status, body)
				}
				return err
			})
			at.shows(t, baseDomain)
			at.shows(t, api)

			orders := ca.Orders()
			for _, name := range []string{"nobody." + baseDomain, "a.shop." + baseDomain, "shop.example.net", "shop.other." + baseDomain} {
				at.refuses(t, name)
			}
			passed := p.publish(t, "passed", "protocol", "tls")
			if _, err := at.certificate("passed." + baseDomain); err == nil {
				t.Error("a host that is passed through has a certificate of this server")
			}
			_, _ = s.API.Call(http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", passed), nil)
			if ca.Orders() != orders || strings.Contains(ca.Said(), "nobody.") {
				t.Errorf("the authority was asked: %d orders, had %d", ca.Orders(), orders)
			}
			if got := ca.Issued(); got != 3 {
				t.Errorf("%d certificates were given, want 3", got)
			}

			// A challenge that is not ours is the service's business, as any path is.
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			req, err := http.NewRequest(http.MethodGet, "http://"+clear+"/app/.well-known/acme-challenge/unknown", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = shop
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusPermanentRedirect {
				t.Errorf("another challenge is answered %s, want a redirect to https", res.Status)
			}

			if n := metric(t, s, "tunnox_acme_certificates"); n != 3 {
				t.Errorf("the metrics have %v certificates, want 3", n)
			}
			if end := metric(t, s, fmt.Sprintf(`tunnox_acme_certificate_end_seconds{host=%q}`, shop)); int64(end) != first.NotAfter.Unix() {
				t.Errorf("the metrics say that the certificate ends at %v, want %d", end, first.NotAfter.Unix())
			}
			if n := metric(t, s, `tunnox_acme_orders_total{result="issued"}`); n != 3 {
				t.Errorf("the metrics have %v orders, want 3", n)
			}

			ca.Stop()
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			private(t, filepath.Join(s.Dir, "certificates"))
			s.Restart(t)
			if again := at.shows(t, shop); again.SerialNumber.Cmp(first.SerialNumber) != 0 {
				t.Error("after a restart the host has another certificate")
			}
		})
	}
}

// private fails when others can read a file below a folder.
func private(t *testing.T, folder string) {
	t.Helper()
	keys := 0
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.HasSuffix(path, ".key") {
			keys++
		}
		return err
	})
	if err != nil || keys != 3 {
		t.Errorf("%d keys in %s, %v, want 3", keys, folder, err)
	}
}

// An authority that cannot reach the host gives no certificate, which visitors hear at
// once, and is not asked again by each of them.
func TestAnAuthorityThatRefusesIsNotAskedAtOnceAgain(t *testing.T) {
	t.Parallel()
	dns := services.StartDNS(t)
	dns.SetAddress("*."+baseDomain, "127.0.0.1")
	ca := services.StartPebble(t, services.PebbleOptions{DNS: dns.Addr})
	at := visited{net.JoinHostPort("127.0.0.1", fmt.Sprint(programs.FreePort(t))), ca.Roots()}
	s := programs.Serve(t, "--https", at.address, "--base-domain", baseDomain, "--acme", "on", "--acme-ca", ca.Directory, "--acme-root", ca.Root)
	publishing(t, s.API, s).publish(t, "shop")
	programs.Eventually(t, limit, func() error {
		_, _ = at.certificate("shop." + baseDomain)
		if n := metric(t, s, `tunnox_acme_orders_total{result="failed"}`); n != 1 {
			return fmt.Errorf("%v orders have failed", n)
		}
		return nil
	})
	orders := ca.Orders()
	for range 20 {
		if _, err := at.certificate("shop." + baseDomain); err == nil {
			t.Fatal("there is a certificate")
		}
	}
	if got := ca.Orders(); got != orders {
		t.Errorf("visitors have made %d more orders", got-orders)
	}
}
