package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/ingress"
)

// checkAPIHost gives what is wrong with --api-host.
func (c *config) checkAPIHost() (errs []error) {
	c.APIHost = strings.ToLower(strings.TrimSuffix(c.APIHost, "."))
	if host, ok := ingress.Host(c.APIHost); c.APIHost != "" && (!ok || host != c.APIHost || !strings.Contains(host, ".") && host != c.BaseDomain) {
		errs = append(errs, fmt.Errorf("--api-host: %q is no full name of a host such as t.example.org", c.APIHost))
	}
	return errs
}

// serveAPIHost prepares the API for visitors of --https.
func (p *process) serveAPIHost(ctx context.Context, h *hostServer, api http.Handler) (map[string]http.Handler, error) {
	if h.apiHost == "" || api == nil {
		return nil, nil
	}
	// Nobody can take the host while this server is announced. Before that somebody may
	// have.
	if name, ok := h.name(h.apiHost); ok {
		for _, protocol := range []domain.Protocol{domain.ProtocolHTTP, domain.ProtocolTLS} {
			switch has, err := h.f.HasHost(ctx, name, protocol, ""); {
			case err != nil:
				p.log.Warn("cannot find out whether a mapping has the host of the API; the API takes its visitors", "host", h.apiHost, "error", err)
			case has:
				return nil, fmt.Errorf("--api-host: a mapping has the public host %s; delete the mapping or give it another host, or choose another --api-host", h.apiHost)
			}
		}
	}
	return map[string]http.Handler{h.apiHost: httpapi.Guest(api, h.going)}, nil
}

// apiHostURL is the URL of the API at --api-host, "" for none.
func (p *process) apiHostURL() string {
	if p.cfg.APIHost == "" || p.sockets.https == nil {
		return ""
	}
	bound := p.sockets.https.Addr()
	if u, err := url.Parse(strings.Replace(p.cfg.AdvertiseHTTP, "*.", "", 1)); err == nil && u.Scheme == "https" { // another port leads to --https
		if u.Port() == "" {
			return "https://" + p.cfg.APIHost
		}
		return "https://" + p.cfg.APIHost + ":" + u.Port()
	}
	return "https://" + withPort(p.cfg.APIHost, bound, "443")
}

// apiHosts are the hosts at which the API is, each once.
func apiHosts(nodes []directory.Node) (hosts []string) {
	for _, n := range nodes {
		if n.APIHost != "" {
			hosts = append(hosts, n.APIHost)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
