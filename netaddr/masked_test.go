package netaddr

import "testing"

func TestMasked(t *testing.T) {
	for text, want := range map[string]string{
		"read tcp 192.0.2.1:80->198.51.100.77:4711: connection reset by peer": "read tcp 192.0.2.0/24->198.51.100.0/24: connection reset by peer",
		"dial tcp [2001:db8:1:2:3:4:5:6]:443: i/o timeout":                    "dial tcp 2001:db8:1::/48: i/o timeout",
		"at 18:31:33 of 2026 version 1.2.3, node-001.":                        "at 18:31:33 of 2026 version 1.2.3, node-001.",
		"from 203.0.113.9.":                   "from 203.0.113.0/24.",
		"::1 and fe80::1%eth0 and dead:beef":  "::/48 and fe80::/48 and dead:beef",
		"lookup db.example.org: no such host": "lookup db.example.org: no such host",
		"":                                    "",
	} {
		if got := Masked(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	for remote, want := range map[string]string{"192.0.2.7:1": "192.0.2.0/24", "[::ffff:192.0.2.7]:1": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "memory": "memory", "": ""} {
		if got := Network(remote); got != want {
			t.Errorf("the network of %q is %q, want %q", remote, got, want)
		}
	}
}
