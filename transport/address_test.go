package transport

import (
	"context"
	"errors"
	"testing"
)

func TestAddresses(t *testing.T) {
	for text, want := range map[string]Address{
		"example.org:7000":            {"tls", "example.org", "7000"},
		"tls://example.org:7000":      {"tls", "example.org", "7000"},
		"TLS://[2001:db8::1]:7000":    {"tls", "2001:db8::1", "7000"},
		"quic://198.51.100.1:443":     {"quic", "198.51.100.1", "443"},
		"wss://tunnel.example.org:80": {"wss", "tunnel.example.org", "80"},
	} {
		got, err := ParseAddress(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%q is written %q and read %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "host", "host:", ":7000", "host:nosuch", "host:0", "host:99999", "host:-1", "://host:1", "tls://host", "a b://"} {
		if a, err := ParseAddress(text); err == nil {
			t.Errorf("%q is taken for %+v", text, a)
		}
	}
}

func TestCarriersBySchemes(t *testing.T) {
	dialled := ""
	by := func(scheme string) DialFunc {
		return func(_ context.Context, address string, _ DialConfig) (Session, error) {
			dialled = scheme + " " + address
			return nil, nil
		}
	}
	carriers := Carriers{"tls": by("tls"), "other": by("other")}
	for text, want := range map[string]string{
		"h:1": "tls h:1", "tls://h:2": "tls h:2", "other://h:3": "other h:3",
	} {
		if _, err := carriers.Dial(context.Background(), text, DialConfig{}); err != nil || dialled != want {
			t.Errorf("%s dialled %q, %v", text, dialled, err)
		}
	}
	if _, err := carriers.Dial(context.Background(), "quic://h:4", DialConfig{}); !errors.Is(err, ErrScheme) {
		t.Errorf("an unknown scheme: %v", err)
	}
}
