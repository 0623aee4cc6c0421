package ingress

import (
	"net"
	"strings"
)

// Host gives the one form of a host name that a visitor asked for: lower case,
// without port and final dot. It reports false for what is no host name; an IP
// address is none, since no mapping has one.
func Host(asked string) (host string, ok bool) {
	host = asked
	if h, port, err := net.SplitHostPort(asked); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return "", false
		}
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(host) == 0 || len(host) > 253 || net.ParseIP(host) != nil {
		return "", false
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return host, true
}
