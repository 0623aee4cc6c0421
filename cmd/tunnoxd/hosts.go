package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/ingress"
	"github.com/tunnox-net/tunnox/wire"
)

// hostServer is HTTP at public hosts: what a host leads to is known by the forwarder,
// which also opens the connections to the services.
type hostServer struct {
	domain  string // base domain
	log     *slog.Logger
	f       *forwarder.Forwarder
	server  *ingress.Server // nil: this process serves no public hosts
	leaving sync.Once
	left    chan struct{} // closed when no visitor is left
}

// serveHosts begins to serve visitors.
func (p *process) serveHosts(h *hostServer, f *forwarder.Forwarder) error {
	trusted, err := p.cfg.trustedProxies()
	if err != nil {
		return err
	}
	h.f, h.left = f, make(chan struct{})
	config := ingress.Config{Finder: h, Trusted: trusted, Logger: p.log.With("part", "hosts")}
	if p.sockets.https != nil {
		config.Secure = p.cfg.secureURL(p.sockets.https.Addr())
	}
	h.server = ingress.New(config)
	if p.sockets.https != nil {
		if err := p.serveHTTPS(h.server); err != nil {
			return err
		}
	}
	if p.sockets.http == nil {
		return nil
	}
	p.run("public hosts", func(ctx context.Context) error {
		err := h.server.Serve(p.cfg.heralded(p.sockets.http))
		if err == nil {
			<-ctx.Done() // a drain that an operator asked for ends visitors, and not the process
		}
		return err
	})
	return nil
}

// leave takes no visitors from now on, and lets those who are there finish.
func (h *hostServer) leave() {
	if h.server == nil {
		return
	}
	h.leaving.Do(func() {
		go func() {
			defer close(h.left)
			_ = h.server.Shutdown(context.Background()) // end says when it has taken too long
		}()
	})
}

// end waits for leave to be done, or ends all that is left.
func (h *hostServer) end(ctx context.Context) {
	if h.server == nil {
		return
	}
	h.leave()
	select {
	case <-h.left:
	case <-ctx.Done():
		_ = h.server.Close() // closes sockets; there is nothing to do about one that cannot be
		<-h.left
	}
}

// Find implements ingress.Finder.
func (h *hostServer) Find(ctx context.Context, host, path, visitor string) (ingress.Site, error) {
	name, ok := strings.CutSuffix(host, "."+h.domain)
	if !ok || strings.Contains(name, ".") {
		return ingress.Site{}, ingress.ErrNoSite // other domains are not verified yet
	}
	m, err := h.f.Host(ctx, name, path, visitor)
	switch {
	case errors.Is(err, forwarder.ErrNoHost):
		return ingress.Site{}, ingress.ErrNoSite
	case errors.Is(err, forwarder.ErrBusy):
		return ingress.Site{}, &ingress.Unreachable{Status: http.StatusTooManyRequests, Code: string(wire.TooMany),
			Sentence: "Too many names that are not known here are being asked for. Try again in a moment.", Err: err}
	case err != nil:
		return ingress.Site{}, ingress.NotLookedUp(err)
	}
	return ingress.Site{Mapping: m.State.ID, Version: int64(m.Version), Scheme: m.State.TargetScheme, ServerName: serverName(m.State.TargetHost), Dial: func(_ context.Context, visitor string) (net.Conn, error) {
		conn, err := h.f.DialHost(name, m.State.ID, visitor)
		if err != nil {
			return nil, unreachable(err)
		}
		return conn, nil
	}}, nil
}

// serverName is what a service is asked for by SNI: no address is.
func serverName(host string) string {
	if net.ParseIP(host) != nil {
		return ""
	}
	return host
}

// unreachable says to a visitor which hop on the way to the service failed. The words
// are ours: what an agent says of its network is for the log.
func unreachable(err error) error {
	code := wire.CodeOf(err)
	u := &ingress.Unreachable{Code: string(code), Err: err}
	switch code {
	case wire.NoSuchMapping, wire.MappingDisabled:
		return ingress.ErrNoSite
	case wire.TargetOffline:
		u.Sentence = "The machine behind this address is not connected at the moment."
	case wire.DialRefused:
		u.Sentence = "The machine behind this address is connected, and nothing listens where the service should be."
	case wire.DialTimeout:
		u.Sentence = "The machine behind this address is connected, and the service did not take the connection in time."
	case wire.DialUnreachable:
		u.Sentence = "The machine behind this address is connected, and cannot reach the service."
	case wire.PolicyDenied:
		u.Sentence = "The machine behind this address is connected, and its owner does not allow this service."
	case wire.TargetOverloaded:
		u.Sentence = "The machine behind this address is connected, and did not answer in time."
	case wire.QuotaConnections:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "There are as many connections to this address as its owner may have. Try again soon."
	case wire.QuotaTraffic:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "The owner of this address has used up what they may transfer."
	case wire.NodeDraining, wire.ShuttingDown:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "This server is ending. Try again: another one answers."
	case wire.TooMany:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "Too many visitors are coming at once. Try again in a moment."
	default:
		u.Code, u.Sentence = string(wire.Internal), "Something failed on the way to the service."
	}
	return u
}

// checkHosts gives what is wrong with each of the settings of public hosts.
func (c *config) checkHosts() (errs []error) {
	c.BaseDomain = strings.ToLower(strings.Trim(c.BaseDomain, "."))
	if host, ok := ingress.Host(c.BaseDomain); c.BaseDomain != "" && (!ok || host != c.BaseDomain) {
		errs = append(errs, fmt.Errorf("--base-domain: %q is no domain such as t.example.org", c.BaseDomain))
	}
	if c.AdvertiseHTTP == "" {
		return errs
	}
	u, err := url.Parse(strings.Replace(c.AdvertiseHTTP, "*.", "", 1))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" ||
		!strings.HasPrefix(c.AdvertiseHTTP, u.Scheme+"://*.") {
		errs = append(errs, fmt.Errorf("--advertise-http: %q is not such as https://*.t.example.org", c.AdvertiseHTTP))
	}
	return errs
}

// checkHostsTogether gives what is wrong with them together.
func (c *config) checkHostsTogether() error {
	serves := c.HTTP != "" || c.HTTPS != ""
	switch u, err := url.Parse(strings.Replace(c.AdvertiseHTTP, "*.", "", 1)); {
	case serves && c.BaseDomain == "":
		return usageError{errors.New("--http and --https need --base-domain: the public hosts are its names")}
	case !serves && c.BaseDomain != "":
		return usageError{errors.New("--base-domain needs --http or --https, which serve its names")}
	case !serves && c.AdvertiseHTTP != "":
		return usageError{errors.New("--advertise-http needs --http or --https")}
	case c.AdvertiseHTTP != "" && (err != nil || u.Hostname() != c.BaseDomain):
		return usageError{fmt.Errorf("--advertise-http must be of --base-domain, for example https://*.%s", c.BaseDomain)}
	case c.HTTPS != "" && c.Certificate == "":
		return usageError{errors.New("--https needs --certificate and --certificate-key")}
	case c.HTTPS == "" && (c.Certificate != "" || c.CertificateKey != ""):
		return usageError{errors.New("--certificate and --certificate-key need --https")}
	}
	_, err := c.certificatePairs()
	return err
}

// hostsURL is the URL of public hosts, with * for the name: https where there is --https.
func (p *process) hostsURL() string {
	switch {
	case p.cfg.AdvertiseHTTP != "":
		return strings.TrimSuffix(p.cfg.AdvertiseHTTP, "/")
	case p.sockets.https != nil:
		return "https://*." + withPort(p.cfg.BaseDomain, p.sockets.https.Addr(), "443")
	default:
		return "http://*." + withPort(p.cfg.BaseDomain, p.sockets.http.Addr(), "80")
	}
}

// withPort adds the port of a listener to a host, unless it is the usual one.
func withPort(host string, bound net.Addr, usual string) string {
	_, port, err := net.SplitHostPort(bound.String())
	if err != nil || port == usual {
		return host
	}
	return net.JoinHostPort(host, port)
}
