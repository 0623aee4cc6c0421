package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPolicy(t *testing.T) {
	tests := []struct {
		name    string
		allow   []string
		host    string // as the mapping names it; "" = the address
		address string
		port    uint16
		want    bool
	}{
		{"loopback by default", nil, "", "127.0.0.1", 80, true},
		{"all of loopback", nil, "", "127.8.7.6", 65535, true},
		{"IPv6 loopback", nil, "localhost", "::1", 80, true},
		{"mapped loopback", nil, "", "::ffff:127.0.0.1", 80, true},
		{"nothing else by default", nil, "", "10.0.0.5", 80, false},
		{"a name is no way around", nil, "localhost", "10.0.0.5", 80, false},
		{"unspecified is not loopback", nil, "", "0.0.0.0", 80, false},
		{"unspecified IPv6", []string{"*"}, "", "::", 80, false},

		{"address and port", []string{"10.0.0.5:5432"}, "", "10.0.0.5", 5432, true},
		{"other port", []string{"10.0.0.5:5432"}, "", "10.0.0.5", 5433, false},
		{"other address", []string{"10.0.0.5:5432"}, "", "10.0.0.6", 5432, false},
		{"mapped address", []string{"10.0.0.5:5432"}, "", "::ffff:10.0.0.5", 5432, true},
		{"loopback stays", []string{"10.0.0.5:5432"}, "", "127.0.0.1", 22, true},
		{"range, first", []string{"10.0.0.5:5000-5010"}, "", "10.0.0.5", 5000, true},
		{"range, last", []string{"10.0.0.5:5000-5010"}, "", "10.0.0.5", 5010, true},
		{"range, behind", []string{"10.0.0.5:5000-5010"}, "", "10.0.0.5", 5011, false},
		{"all ports", []string{"10.0.0.5:*"}, "", "10.0.0.5", 1, true},
		{"network", []string{"10.0.0.0/8:443"}, "", "10.255.1.2", 443, true},
		{"outside of the network", []string{"10.0.0.0/8:443"}, "", "11.0.0.1", 443, false},
		{"name in the network", []string{"10.0.0.0/8:443"}, "db.internal", "10.1.1.1", 443, true},
		{"IPv6 network", []string{"[fd12::/16]:443"}, "", "fd12::1", 443, true},
		{"IPv6 address", []string{"[2001:db8::1]:443"}, "", "2001:db8::1", 443, true},
		{"name", []string{"db.internal:5432"}, "db.internal", "10.0.0.9", 5432, true},
		{"name in another case", []string{"DB.internal.:5432"}, "db.INTERNAL", "10.0.0.9", 5432, true},
		{"final dot", []string{"db.internal:5432"}, "db.internal.", "10.0.0.9", 5432, true},
		{"another name", []string{"db.internal:5432"}, "evil.db.internal", "10.0.0.9", 5432, false},
		{"the name's address", []string{"db.internal:5432"}, "", "10.0.0.9", 5432, false},
		{"anything", []string{"*"}, "", "93.184.216.34", 443, true},
		{"any host, one port", []string{"*:443"}, "example.org", "93.184.216.34", 443, true},
		{"any host, other port", []string{"*:443"}, "example.org", "93.184.216.34", 80, false},

		{"metadata by *", []string{"*"}, "", "169.254.169.254", 80, false},
		{"metadata by *:80", []string{"*:80"}, "", "169.254.169.254", 80, false},
		{"metadata by everything", []string{"0.0.0.0/0:*"}, "", "169.254.169.254", 80, false},
		{"metadata by a name", []string{"metadata.google.internal:80"}, "metadata.google.internal", "169.254.169.254", 80, false},
		{"metadata mapped", []string{"*"}, "", "::ffff:169.254.169.254", 80, false},
		{"metadata compatible", []string{"*"}, "", "::169.254.169.254", 80, false},
		{"metadata by NAT64", []string{"*"}, "", "64:ff9b::a9fe:a9fe", 80, false},
		{"metadata by 6to4", []string{"*"}, "", "2002:a9fe:a9fe::1", 80, false},
		{"metadata by NAT64, network allowed", []string{"[64:ff9b::/96]:80"}, "", "64:ff9b::a9fe:a9fe", 80, false},
		{"harmless by NAT64", []string{"[64:ff9b::/96]:80"}, "", "64:ff9b::5db8:d822", 80, true},
		{"metadata named", []string{"169.254.169.254:80"}, "", "169.254.169.254", 80, true},
		{"metadata named, other port", []string{"169.254.169.254:80"}, "", "169.254.169.254", 81, false},
		{"link-local named by network", []string{"169.254.0.0/16:*"}, "", "169.254.7.7", 9, true},
		{"wider than link-local", []string{"169.0.0.0/8:*"}, "", "169.254.7.7", 9, false},
		{"AWS IPv6 metadata", []string{"*"}, "", "fd00:ec2::254", 80, false},
		{"AWS IPv6 metadata by network", []string{"[fd00::/8]:*"}, "", "fd00:ec2::254", 80, false},
		{"AWS IPv6 metadata named", []string{"[fd00:ec2::254]:80"}, "", "fd00:ec2::254", 80, true},
		{"Alibaba metadata", []string{"*"}, "", "100.100.100.200", 80, false},
		{"IPv6 link-local", []string{"*"}, "", "fe80::1%eth0", 80, false},
		{"IPv6 link-local named", []string{"[fe80::1]:80"}, "", "fe80::1%eth0", 80, true},
		{"multicast", []string{"*"}, "", "224.0.0.251", 80, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePolicy(tt.allow)
			if err != nil {
				t.Fatal(err)
			}
			host := tt.host
			if host == "" {
				host = tt.address
			}
			if got := p.Allows(host, netip.MustParseAddr(tt.address), tt.port); got != tt.want {
				t.Errorf("allow %v: %s (%s) port %d: %v, want %v", tt.allow, host, tt.address, tt.port, got, tt.want)
			}
		})
	}
}

// Every wrong entry is named, and the error says how to write it.
func TestPolicyErrorsSayHow(t *testing.T) {
	wrong := []string{"", "10.0.0.5", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:70000", "10.0.0.5:9-8", "10.0.0.5:x",
		"10.0.0.5:+80", "10.0.0.0/33:80", "10.0.0.1/8:80", "::1:80", "[::1:80", "[::1]", "[::1]80", "[10.0.0.1]:80",
		"::ffff:10.0.0.0/104:80", "[::ffff:10.0.0.0/104]:80", "1.2.3:80", "999.1.1.1:80", "-x:80", "a..b:80", "ho st:80", ":80", "a/b:80"}
	_, err := ParsePolicy(append(wrong, "good.example:80"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, entry := range wrong {
		if !strings.Contains(err.Error(), `"`+entry+`"`) {
			t.Errorf("%q was taken", entry)
		}
	}
	if strings.Contains(err.Error(), `"good.example`) || !strings.Contains(err.Error(), "write HOST:PORT") {
		t.Errorf("the error does not help: %v", err)
	}
}

// FuzzParsePolicy: no entry panics, and none opens what must be named.
func FuzzParsePolicy(f *testing.F) {
	for _, seed := range []string{"*", "*:80", "10.0.0.5:5432", "[fe80::1]:80", "169.254.169.254:*", "0.0.0.0/0:*",
		"[::/0]:1-65535", "db.internal:5000-5010", "[64:ff9b::/96]:80", "[::ffff:0:0/96]:80"} {
		f.Add(seed)
	}
	metadata := netip.MustParseAddr("169.254.169.254")
	spellings := []string{"::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::169.254.169.254"}
	f.Fuzz(func(t *testing.T, entry string) {
		p, err := ParsePolicy([]string{entry})
		if err != nil {
			return
		}
		r := p.rules[0]
		named := r.network.IsValid() && r.network.Bits() >= 16 && r.network.Contains(metadata)
		for _, spelling := range append(spellings, metadata.String()) {
			if p.Allows(spelling, netip.MustParseAddr(spelling), r.first) && !named {
				t.Errorf("%q allows %s", entry, spelling)
			}
		}
	})
}

func TestGuardedNetworksAreWellFormed(t *testing.T) {
	for _, g := range guarded {
		if g.Masked() != g {
			t.Errorf("%v has bits behind its prefix", g)
		}
	}
	if !slices.Contains(guarded, netip.MustParsePrefix("169.254.0.0/16")) {
		t.Error("link-local is not guarded")
	}
}
