package ingress

import (
	"strings"
	"testing"
)

// A host has one form, and giving it twice changes nothing.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"app.example.org", "APP.example.org.", "a:80", "[::1]:80", "127.0.0.1", "", ".", "a..b", "-a", "a:b", "ä.org", "a_b.org"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, asked string) {
		host, ok := Host(asked)
		if !ok {
			return
		}
		if again, ok := Host(host); !ok || again != host {
			t.Errorf("%q is %q, and that is %q (%v)", asked, host, again, ok)
		}
		if strings.ContainsAny(host, "/\\@:?#%<>\" \x00\r\n") || host != strings.ToLower(host) || len(host) > 253 {
			t.Errorf("%q became %q", asked, host)
		}
	})
}
