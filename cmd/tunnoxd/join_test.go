package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/transport"
)

var joinLine = regexp.MustCompile(`tunnox agent --server (\S+) --pin (sha256:[0-9a-f]{64})`)

// said gives the join line a server has printed: where agents connect, and the pin.
func (r *running) said(t *testing.T) (server string, pin transport.Pin) {
	t.Helper()
	found := joinLine.FindStringSubmatch(r.stdout.String())
	if found == nil {
		t.Fatalf("no join line in %q", r.stdout)
	}
	pin, err := transport.ParsePin(found[2])
	if err != nil {
		t.Fatal(err)
	}
	return found[1], pin
}

// greets tells whether an agent that has pinned pin gets a session at address.
func greets(t *testing.T, address string, pin transport.Pin) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	session, err := transport.DialTLS(ctx, address, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err == nil {
		_ = session.Close()
	}
	return err
}

// One line joins agents to every forwarder of a cluster, and is printed by each of
// them and by the control plane.
func TestOneJoinLineHoldsForAllForwarders(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir := t.TempDir()
	control, err := start(t, dir, "control", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--state", "127.0.0.1:0", "--postgres", postgres, "--redis", redis)
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(dir, "join-token")
	if info, err := os.Stat(token); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("join token: %v, %v", info, err)
	}
	server, pin := control.said(t)
	if server != "FORWARDER:8080" || control.addresses["state"] == "" {
		t.Errorf("control: server %s, addresses %v", server, control.addresses)
	}
	line := "tunnoxd forwarder --data DIR --control " + control.addresses["state"] + " --join-token-file " + token
	if !strings.Contains(control.stdout.String(), line) {
		t.Errorf("the control plane does not say %q but %s", line, control.stdout)
	}
	forwarder := func(dir string, more ...string) *running {
		t.Helper()
		f, err := start(t, dir, append([]string{"forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
			"--redis", redis, "--control", control.addresses["state"], "--join-token-file", token}, more...)...)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := t.TempDir()
	one, two := forwarder(first), forwarder(t.TempDir(), "--advertise-agents", "localhost:1")
	for _, f := range []*running{one, two} {
		server, said := f.said(t)
		if said != pin {
			t.Errorf("the pin at %s is %s, not %s", server, said, pin)
		}
		if f.addresses["bridge"] == "" {
			t.Errorf("addresses: %v", f.addresses)
		}
		if err := greets(t, f.addresses["agents"], pin); err != nil {
			t.Errorf("%s: %v", f.addresses["agents"], err)
		}
	}
	if server, _ := two.said(t); server != "localhost:1" {
		t.Errorf("advertised is %s", server)
	}
	if err := greets(t, one.addresses["agents"], transport.Pin{1}); err == nil {
		t.Error("another pin was accepted")
	}
	// While no control plane answers, a forwarder that was here before starts again
	// and is the same to its agents.
	for _, r := range []*running{one, control} {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := greets(t, forwarder(first).addresses["agents"], pin); err != nil {
		t.Errorf("started without a control plane: %v", err)
	}
}

func TestServeThatIsJoinedIsKnownByTheClustersAuthority(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	s, err := start(t, t.TempDir(), serveArgs("--postgres", postgres, "--redis", redis, "--state", "127.0.0.1:0", "--bridge", "127.0.0.1:0")...)
	if err != nil {
		t.Fatal(err)
	}
	address, pin := s.said(t)
	if err := greets(t, address, pin); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.stdout.String(), "tunnoxd forwarder ") {
		t.Errorf("it does not say how to join a forwarder: %s", s.stdout)
	}
}

func TestNamesOfAgentsCertificates(t *testing.T) {
	ls, err := openListeners(binding{api: "0.0.0.0:0", agents: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer ls.close()
	for _, tt := range []struct {
		advertise string
		bound     net.Addr
		want      []string
	}{
		{"", ls.agents.Addr(), []string{"127.0.0.1", "localhost", "::1"}},
		{"agents.example.org:443", ls.agents.Addr(), []string{"agents.example.org", "127.0.0.1", "localhost"}},
		{"agents.example.org:443,[2001:db8::1]:8080", ls.agents.Addr(), []string{"agents.example.org", "2001:db8::1", "127.0.0.1"}},
		{"[fe80::1%eth0]:1", ls.api.Addr(), []string{"fe80::1", "localhost"}},
	} {
		names := agentsNames(tt.advertise, tt.bound)
		for _, want := range tt.want {
			if !slices.Contains(names, want) {
				t.Errorf("advertised %q: %v lack %s", tt.advertise, names, want)
			}
		}
		if len(names) > maxAgentsNames {
			t.Errorf("%d names", len(names))
		}
	}
	all := agentsNames("", ls.api.Addr())
	for _, ip := range ownIPs() {
		if len(all) < maxAgentsNames && !slices.Contains(all, ip.String()) {
			t.Errorf("bound everywhere, %v lack %s", all, ip)
		}
	}
}
