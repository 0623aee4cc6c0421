package ingress

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// setForwarded says where a request comes from: X-Forwarded-For, -Host and -Proto,
// and Forwarded (RFC 7239). If the peer is a trusted proxy, what it said is kept and
// extended. Otherwise it is replaced, because a visitor can write anything into these
// headers.
func setForwarded(out http.Header, in *http.Request, trusted []netip.Prefix) {
	peer, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		peer = in.RemoteAddr
	}
	proto := scheme(in, trusted)
	before, forwarded, host := "", "", in.Host
	if isTrusted(in, trusted) {
		before = strings.Join(in.Header.Values("X-Forwarded-For"), ", ")
		forwarded = strings.Join(in.Header.Values("Forwarded"), ", ")
		if h := in.Header.Get("X-Forwarded-Host"); h != "" {
			host = h
		}
	}
	out.Set("X-Forwarded-For", appendTo(before, peer))
	out.Set("X-Forwarded-Host", host)
	out.Set("X-Forwarded-Proto", proto)
	out.Set("Forwarded", appendTo(forwarded, "for="+node(peer)+`;host="`+quoted(in.Host)+`";proto=`+proto))
}

// scheme is the scheme of the visitor's request: that of the connection, or the word of
// a trusted proxy.
func scheme(in *http.Request, trusted []netip.Prefix) string {
	if p := in.Header.Get("X-Forwarded-Proto"); (p == "http" || p == "https") && isTrusted(in, trusted) {
		return p
	}
	if _, secure := serverName(in); secure {
		return "https"
	}
	return "http"
}

// isTrusted reports whether the peer of the connection is a trusted proxy.
func isTrusted(in *http.Request, trusted []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(in.RemoteAddr)
	return err == nil && contains(trusted, peer.Addr())
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

func appendTo(list, value string) string {
	if list == "" {
		return value
	}
	return list + ", " + value
}

// node writes an address as RFC 7239, section 6, wants it: IPv6 in brackets and quotes.
func node(address string) string {
	if strings.Contains(address, ":") {
		return `"[` + quoted(address) + `]"`
	}
	return address
}

// quoted is the inside of a quoted-string.
func quoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
}
