package certificates

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// foreign is the host of another domain than the server's.
const foreign = "shop.example.com"

// Visitors come in at one forwarder, and the authority looks at the other one. Two
// control planes order each certificate once, and give it to both forwarders. No
// private key can be read in Postgres, and hosts that are known are served while no
// control plane runs.
func TestClusterGetsEachCertificateOnce(t *testing.T) {
	for kind, options := range kinds {
		t.Run(kind, func(t *testing.T) {
			ports := programs.FreePorts(t, 2)
			dns := services.StartDNS(t)
			dns.SetAddress("*."+baseDomain, "127.0.0.12")
			ca := services.StartPebble(t, options(ports[0], ports[1], dns.Addr))
			postgres, redis := services.Postgres(t), services.Redis(t)
			first := programs.StartServerAt(t, "127.0.0.10", "control", "--postgres", postgres, "--redis", redis,
				"--acme", "ops@example.org", "--acme-ca", ca.Directory, "--acme-root", ca.Root, "--resolver", dns.Addr)
			second := programs.StartControlBeside(t, "127.0.0.13", first)
			var at []visited
			var forwarders []*programs.Server
			for _, host := range []string{"127.0.0.11", "127.0.0.12"} {
				v := visited{fmt.Sprintf("%s:%d", host, ports[1]), ca.Roots()}
				forwarders = append(forwarders, programs.StartServerAt(t, host, "forwarder", "--redis", redis, "--control", first.State+","+second.State,
					"--join-token-file", filepath.Join(first.Dir, "join-token"), "--http", fmt.Sprintf("%s:%d", host, ports[0]), "--https", v.address,
					"--base-domain", baseDomain))
				at = append(at, v)
			}
			p := publishing(t, first.API, forwarders[1])
			hosts := []string{"one", "two", "three"}
			for _, host := range hosts {
				p.publish(t, host)
			}
			// One more has a domain of its user's own.
			var d own
			first.API.Do(t, http.MethodPost, "/api/v1/domains", map[string]any{"user_id": p.user.ID, "host": foreign}, &d)
			dns.SetText(d.Name, d.Value)
			dns.SetAddress(foreign, "127.0.0.12")
			second.API.Do(t, http.MethodPost, fmt.Sprintf("/api/v1/domains/%d/verify", d.ID), nil, nil)
			p.publish(t, foreign)
			hosts = append(hosts, foreign)

			serials := make([]string, 2*len(hosts))
			var visiting sync.WaitGroup
			for i, host := range hosts {
				for j, v := range at {
					visiting.Go(func() {
						name := host
						if host != foreign {
							name += "." + baseDomain
						}
						err := programs.Poll(limit, func() error {
							c, err := v.certificate(name)
							if err == nil {
								serials[2*i+j] = c.SerialNumber.String()
							}
							return err
						})
						if err != nil {
							t.Error(err)
						}
					})
				}
			}
			visiting.Wait()
			for i, host := range hosts {
				if serials[2*i] != serials[2*i+1] {
					t.Errorf("the forwarders show two certificates of %s", host)
				}
			}
			if issued, accounts := ca.Issued(), ca.Accounts(); issued != len(hosts) || accounts != 1 {
				t.Errorf("%d certificates were given to %d accounts, want %d and one", issued, accounts, len(hosts))
			}
			encrypted(t, postgres)
			at[0].refuses(t, "nobody."+baseDomain)
			if strings.Contains(ca.Said(), "nobody.") {
				t.Error("the authority has heard of a name that nobody has")
			}

			if err := first.Stop(); err != nil {
				t.Error(err)
			}
			if err := second.Stop(); err != nil {
				t.Error(err)
			}
			if c, err := at[0].certificate("one." + baseDomain); err != nil || c.SerialNumber.String() != serials[0] {
				t.Errorf("without a control plane a known host shows %v", err)
			}
		})
	}
}

// encrypted fails when a stored certificate or key can be read.
func encrypted(t *testing.T, postgres string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT key || ' ' || encode(sealed, 'hex') FROM cluster.certificates")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 { // three files of each of three hosts, and the account
		t.Errorf("%d rows are stored; this test looks in the wrong place", len(all))
	}
	for _, row := range all {
		if strings.Contains(row, hex.EncodeToString([]byte("PRIVATE KEY"))) || strings.Contains(row, hex.EncodeToString([]byte("BEGIN"))) || strings.Contains(row, hex.EncodeToString([]byte("account"))) {
			t.Errorf("the row %.60s can be read", row)
		}
	}
}
