package netaddr

import "testing"

func TestGroup(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5":              "192.0.2.1",
		"192.0.2.1":                "192.0.2.1",
		"[::ffff:192.0.2.1]:5":     "192.0.2.1",
		"::ffff:192.0.2.1":         "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64",
		"2001:db8:1:2::9":          "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"fe80::2%eth1":             "fe80::/64",
		"memory":                   "memory",
		"@":                        "@",
		"":                         "",
		"host:80":                  "host",
	} {
		if got := Group(remote); got != want {
			t.Errorf("%q counts as %q, want %q", remote, got, want)
		}
	}
}
