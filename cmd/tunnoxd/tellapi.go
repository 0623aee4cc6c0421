package main

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// apiFor gives the URL of the REST API for people at the machine of an agent that
// connects from an address; "" when that machine is not known to reach the API. What is
// told once is believed for good, so nothing is guessed.
func (p *process) apiFor(from net.Addr) string {
	if p.cfg.AdvertiseAPI != "" {
		return p.cfg.AdvertiseAPI
	}
	if url := p.apiHostURL(); url != "" {
		return url
	}
	if p.sockets.api == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(p.sockets.api.Addr().String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(withoutZone(host)); ip != nil && !ip.IsLoopback() && !ip.IsUnspecified() {
		return "http://" + net.JoinHostPort(host, port)
	}
	if !ofThisMachine(from) {
		return ""
	}
	return "http://" + dialable(p.sockets.api.Addr().String())
}

// ofThisMachine tells whether an address is one of this machine's own.
func ofThisMachine(from net.Addr) bool {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		return false
	}
	ip := net.ParseIP(withoutZone(host))
	return ip != nil && (ip.IsLoopback() || slices.ContainsFunc(ownIPs(), ip.Equal))
}

// checkAPIURL accepts what people can reach an API at: no more than a host and a path.
func checkAPIURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(text, "/") {
		return fmt.Errorf("%q is not a URL such as https://tunnox.example.org", text)
	}
	return nil
}
