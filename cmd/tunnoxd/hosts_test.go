package main

import (
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSettingsOfPublicHosts(t *testing.T) {
	for _, tt := range []struct{ http, domain, advertise, url, fault string }{
		{":80", "t.example.org", "", "http://*.t.example.org", ""},
		{":8080", "T.Example.org.", "", "http://*.t.example.org:8080", ""},
		{":8080", "localhost", "", "http://*.localhost:8080", ""},
		{":8080", "t.example.org", "https://*.t.example.org", "https://*.t.example.org", ""},
		{":8080", "t.example.org", "https://*.t.example.org:8443/", "https://*.t.example.org:8443", ""},
		{":8080", "", "", "", "need --base-domain"},
		{"", "t.example.org", "", "", "needs --http"},
		{"", "", "https://*.t.example.org", "", "needs --http"},
		{":8080", "t.example.org", "https://*.other.example.org", "", "must be of --base-domain"},
		{":8080", "t.example.org", "https://t.example.org", "", "is not such as"},
		{":8080", "t.example.org", "ftp://*.t.example.org", "", "is not such as"},
		{":8080", "no domain", "", "", "is no domain"},
		{":8080", "192.0.2.1", "", "", "is no domain"},
	} {
		c := &config{HTTP: tt.http, BaseDomain: tt.domain, AdvertiseHTTP: tt.advertise}
		var said []string
		for _, err := range append(c.checkHosts(), c.checkHostsTogether()) {
			if err != nil {
				said = append(said, err.Error())
			}
		}
		text := strings.Join(said, "; ")
		if (tt.fault == "") != (text == "") || !strings.Contains(text, tt.fault) {
			t.Errorf("%+v: %q", tt, text)
			continue
		}
		if tt.fault == "" {
			bound, err := net.ResolveTCPAddr("tcp", tt.http)
			if err != nil {
				t.Fatal(err)
			}
			p := &process{cfg: c, sockets: &listeners{http: boundTo{addr: bound}}}
			if got := p.hostsURL(); got != tt.url {
				t.Errorf("%+v: the URL is %s", tt, got)
			}
		}
	}
}

// boundTo is a listener that has an address and nothing else.
type boundTo struct {
	net.Listener
	addr net.Addr
}

func (b boundTo) Addr() net.Addr { return b.addr }

// Settings of TLS that do not fit each other are told before anything starts.
func TestHTTPSSettings(t *testing.T) {
	for _, tt := range []struct {
		config config
		fault  string
	}{
		{config{HTTPS: ":443", BaseDomain: "t.example.org", Certificate: "a.pem", CertificateKey: "a.key"}, ""},
		{config{HTTPS: ":443", BaseDomain: "t.example.org", Certificate: "a.pem,b.pem", CertificateKey: "a.key, b.key"}, ""},
		{config{HTTPS: ":443", Certificate: "a.pem", CertificateKey: "a.key"}, "need --base-domain"},
		{config{HTTPS: ":443", BaseDomain: "t.example.org"}, "needs --acme"},
		{config{HTTPS: ":443", BaseDomain: "t.example.org", ACME: "on"}, ""},
		{config{HTTPS: ":443", BaseDomain: "t.example.org", Control: "c:50051"}, ""},
		{config{HTTP: ":80", BaseDomain: "t.example.org", ACME: "on"}, "--acme needs --https"},
		{config{State: ":50051", ACME: "on"}, ""},
		{config{HTTPS: ":443", BaseDomain: "t.example.org", Certificate: "a.pem,b.pem", CertificateKey: "a.key"}, "names 2 files and --certificate-key 1"},
		{config{HTTPS: ":443", BaseDomain: "t.example.org", Certificate: "a.pem,", CertificateKey: "a.key,b.key"}, "is empty"},
		{config{TLS: ":443", BaseDomain: "t.example.org"}, ""},
		{config{TLS: ":443", BaseDomain: "t.example.org", APIHost: "t.example.org"}, "--api-host needs --https"},
		{config{TLS: ":443", BaseDomain: "t.example.org", HTTP3: ":443"}, "--http3 needs --https"},
		{config{TLS: ":443"}, "need --base-domain"},
		{config{TLS: ":443", BaseDomain: "t.example.org", AdvertiseTLS: "https://*.other.example.org"}, "must be of --base-domain"},
		{config{TLS: ":443", BaseDomain: "t.example.org", AdvertiseHTTP: "https://*.t.example.org"}, "--advertise-http needs"},
		{config{HTTP: ":80", BaseDomain: "t.example.org", AdvertiseTLS: "https://*.t.example.org"}, "--advertise-tls needs"},
		{config{HTTP: ":80", BaseDomain: "t.example.org", Certificate: "a.pem", CertificateKey: "a.key"}, "need --https"},
	} {
		err := tt.config.checkHostsTogether()
		if (tt.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%+v: %v, want %q", tt.config, err, tt.fault)
		}
	}
}

// Labels that are drawn are such as the API takes, and not all the same.
func TestDrawnLabels(t *testing.T) {
	labels := drawLabels(1000)
	for _, label := range labels {
		if !regexp.MustCompile(`^[a-z]+-[a-z]+(-[0-9]{4})?$`).MatchString(label) || len(label) > 63 {
			t.Errorf("%q was drawn", label)
		}
	}
	slices.Sort(labels)
	if different := len(slices.Compact(labels)); different < 900 {
		t.Errorf("of 1,000 labels %d are different", different)
	}
}

// What --acme takes for an e-mail address is one, and the authority is asked over TLS.
func TestACMESettings(t *testing.T) {
	for _, tt := range []struct {
		config config
		fault  string
	}{
		{config{}, ""},
		{config{ACME: "on"}, ""},
		{config{ACME: "ops@example.org", ACMECA: "https://ca.example.org/dir"}, ""},
		{config{ACME: "off"}, "--acme"},
		{config{ACME: "ops@"}, "--acme"},
		{config{ACME: "mailto:ops@example.org"}, "--acme"},
		{config{ACME: "a@example.org,b@example.org"}, "--acme"},
		{config{ACME: "on", ACMECA: "http://ca.example.org/dir"}, "--acme-ca"},
		{config{ACME: "on", ACMECA: "ca.example.org"}, "--acme-ca"},
	} {
		err := errors.Join(tt.config.checkACME()...)
		if (tt.fault == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), tt.fault+":") {
			t.Errorf("--acme %q --acme-ca %q: %v, want %q", tt.config.ACME, tt.config.ACMECA, err, tt.fault)
		}
	}
}
