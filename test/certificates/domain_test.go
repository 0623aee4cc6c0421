package certificates

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// own is a domain as the API shows it.
type own struct {
	ID     int64  `json:"domain_id"`
	Name   string `json:"proof_name"`
	Value  string `json:"proof_value"`
	Status string `json:"status"`
}

// A user's own domain is proved by a TXT record. Then a mapping has its name, visitors
// reach it there, and it gets a certificate. Before that it is nobody's: no mapping, no
// page, no order.
func TestADomainOfAUsersOwn(t *testing.T) {
	ports := programs.FreePorts(t, 2)
	dns := services.StartDNS(t)
	const host = "shop.example.com"
	dns.SetAddress(host, "127.0.0.1")
	ca := services.StartPebble(t, services.PebbleOptions{HTTPPort: ports[0], TLSPort: ports[1], DNS: dns.Addr})
	at := visited{fmt.Sprintf("127.0.0.1:%d", ports[1]), ca.Roots()}
	s := programs.Serve(t, "--http", fmt.Sprintf("127.0.0.1:%d", ports[0]), "--https", at.address, "--base-domain", baseDomain,
		"--acme", "on", "--acme-ca", ca.Directory, "--acme-root", ca.Root, "--resolver", dns.Addr)
	p := publishing(t, s.API, s)
	p.publish(t, "label") // the server has announced that it serves hosts
	body := map[string]any{"user_id": p.user.ID, "target_client_id": p.target.ID, "protocol": "http", "target_host": "127.0.0.1", "target_port": p.port, "public_host": host}
	at.refuses(t, host)

	s.API.Refused(t, http.StatusUnprocessableEntity, "host_not_verified", http.MethodPost, "/api/v1/mappings", body)
	var d own
	s.API.Do(t, http.MethodPost, "/api/v1/domains", map[string]any{"user_id": p.user.ID, "host": host}, &d)
	verify := fmt.Sprintf("/api/v1/domains/%d/verify", d.ID)
	s.API.Refused(t, http.StatusConflict, "domain_not_proved", http.MethodPost, verify, nil)
	s.API.Refused(t, http.StatusUnprocessableEntity, "host_not_verified", http.MethodPost, "/api/v1/mappings", body)
	at.refuses(t, host)
	if ca.Orders() != 0 || dns.Asked(d.Name) == 0 {
		t.Errorf("before the proof the authority has %d orders, and the name server was asked %d times", ca.Orders(), dns.Asked(d.Name))
	}

	dns.SetText(d.Name, "v=spf1 -all", d.Value)
	s.API.Do(t, http.MethodPost, verify, nil, &d)
	if d.Status != "verified" {
		t.Errorf("the domain is %s", d.Status)
	}
	other := s.API.CreateUser(t, "bob")
	foreign := s.API.CreateClient(t, other.ID, "other")
	s.API.Refused(t, http.StatusUnprocessableEntity, "host_not_verified", http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": other.ID, "target_client_id": foreign.ID,
		"protocol": "http", "target_host": "127.0.0.1", "target_port": p.port, "public_host": host})
	var made struct {
		ID  int64  `json:"mapping_id"`
		URL string `json:"public_url"`
	}
	s.API.Do(t, http.MethodPost, "/api/v1/mappings", body, &made)
	if want := fmt.Sprintf("https://%s:%d/", host, ports[1]); made.URL != want {
		t.Errorf("public_url is %s, want %s", made.URL, want)
	}
	if c := at.shows(t, host); len(c.DNSNames) != 1 || c.DNSNames[0] != host {
		t.Errorf("the certificate is for %q", c.DNSNames)
	}
	programs.Eventually(t, limit, func() error {
		status, text, err := at.get(host, "/")
		if err == nil && (status != http.StatusOK || !strings.HasPrefix(text, "hello "+host)) {
			err = fmt.Errorf("%d %.100s", status, text)
		}
		return err
	})
	at.refuses(t, "www."+host)

	// It stays through a kill, and ends with its mapping and itself.
	s.Kill()
	s.Restart(t)
	at.shows(t, host)
	s.API.Refused(t, http.StatusConflict, "domain_in_use", http.MethodDelete, fmt.Sprintf("/api/v1/domains/%d", d.ID), nil)
	s.API.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", made.ID), nil, nil)
	s.API.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/domains/%d", d.ID), nil, nil)
	s.API.Refused(t, http.StatusUnprocessableEntity, "host_not_verified", http.MethodPost, "/api/v1/mappings", body)
	programs.Eventually(t, limit, func() error {
		if _, err := at.certificate(host); err == nil || !strings.HasSuffix(err.Error(), "unrecognized name") {
			return fmt.Errorf("the host of a deleted mapping is answered %v", err)
		}
		return nil
	})
}
