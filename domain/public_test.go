package domain

import "testing"

func TestURLOfAPublicHost(t *testing.T) {
	for _, x := range []struct{ hosts, host, path, want string }{
		{"https://*.t.example.org", "shop", "/", "https://shop.t.example.org/"},
		{"http://*.localhost:8081", "shop", "/app", "http://shop.localhost:8081/app"},
		{"https://*.t.example.org", "shop.example.com", "/", "https://shop.example.com/"},
		{"https://*.t.example.org:8443", "shop.example.com", "/app", "https://shop.example.com:8443/app"},
	} {
		m := Mapping{Origin: Origin{PublicHost: x.host, PublicPath: x.path}}
		if got := m.URL(x.hosts); got != x.want {
			t.Errorf("%s at %s is %s, want %s", x.host, x.hosts, got, x.want)
		}
	}
}
