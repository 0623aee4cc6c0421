package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// source gives the address a request comes from. A proxy of ours says for whom it
// asks; anybody else is who they are, whatever their headers say.
func (a *api) source(r *http.Request) string {
	if len(a.config.TrustedProxies) == 0 || !a.trusts(r.RemoteAddr) {
		return r.RemoteAddr
	}
	said, forwarded := hopsOf(r.Header["X-Forwarded-For"], ""), hopsOf(r.Header["Forwarded"], "for")
	switch {
	case len(said) == 0:
		said = forwarded
	case len(forwarded) > 0 && a.lastHop(r.RemoteAddr, said) != a.lastHop(r.RemoteAddr, forwarded):
		// A proxy writes one of the two and lets the other one pass as it came, from
		// anybody. Which one is ours cannot be seen, so neither is believed.
		return r.RemoteAddr
	}
	return a.lastHop(r.RemoteAddr, said)
}

// lastHop walks from the proxy that asked towards who asked it, for as long as who
// tells is trusted. What stands further left was written by strangers.
func (a *api) lastHop(from string, hops []string) string {
	for _, hop := range slices.Backward(hops) {
		if ip, ok := address(hop); !ok || ip.Zone() != "" {
			return from // "unknown", a name that hides who it is, or nothing that is routed
		}
		if from = hop; !a.trusts(from) {
			return from
		}
	}
	return from
}

// trusts reports whether a network address is one of our proxies.
func (a *api) trusts(text string) bool {
	ip, ok := address(text)
	return ok && slices.ContainsFunc(a.config.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ip.WithZone("")) })
}

// address reads an address with or without a port, as proxies write them.
func address(text string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap(), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return ip.Unmap(), err == nil
}

// hopsOf gives the hops that header lines list, in their order: the elements
// themselves (X-Forwarded-For), or the value of one of their parameters
// (Forwarded, RFC 7239). An element without the parameter is an empty hop.
func hopsOf(lines []string, parameter string) (hops []string) {
	text := strings.Join(lines, ",")
	elements := split(text, ',')
	if text != "" && (parameter == "" || strings.Count(text, `"`)%2 != 0) {
		// X-Forwarded-For has no quotes, and one that a stranger leaves open must not
		// swallow what our proxy put behind it.
		elements = strings.Split(text, ",")
	}
	for _, element := range elements {
		if parameter == "" {
			hops = append(hops, strings.TrimSpace(element))
			continue
		}
		hop := ""
		for _, pair := range split(element, ';') {
			if name, value, _ := strings.Cut(pair, "="); strings.EqualFold(strings.TrimSpace(name), parameter) {
				hop = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
		hops = append(hops, hop)
	}
	return hops
}

// split splits at a separator outside of quotes; nothing has no parts.
func split(text string, separator byte) (parts []string) {
	if text == "" {
		return nil
	}
	quoted, from := false, 0
	for i := range len(text) {
		switch text[i] {
		case '"':
			quoted = !quoted
		case separator:
			if !quoted {
				parts, from = append(parts, text[from:i]), i+1
			}
		}
	}
	return append(parts, text[from:])
}
