package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/ingress"
	"github.com/tunnox-net/tunnox/proxyheader"
	"github.com/tunnox-net/tunnox/wire"
)

// hostServer is HTTP at public hosts: what a host leads to is known by the forwarder,
// which also opens the connections to the services.
type hostServer struct {
	domain  string         // base domain
	logins  control.Logins // nil: nobody can log visitors in
	apiHost string         // where the API is; "" = nowhere here
	log     *slog.Logger
	f       *forwarder.Forwarder
	server  *ingress.Server    // nil: this process serves no public hosts
	entries *ingress.AccessLog // nil: there is none
	leaving sync.Once
	going   chan struct{} // closed when no visitor is taken any more
	left    chan struct{} // closed when no visitor is left
}

// serveHosts begins to serve visitors. source has certificates beside those of files;
// nil: nobody has. api is the REST API of this process.
func (p *process) serveHosts(ctx context.Context, h *hostServer, f *forwarder.Forwarder, source control.Certificates, api http.Handler) error {
	trusted, err := p.cfg.trustedProxies()
	if err != nil {
		return err
	}
	h.f, h.left, h.going = f, make(chan struct{}), make(chan struct{})
	config := ingress.Config{Finder: h, Trusted: trusted, Logger: p.log.With("part", "hosts"), Pass: h.Pass}
	config.Metrics = ingress.NewMetrics(p.cfg.MetricsMappings)
	p.registry.MustRegister(config.Metrics)
	if p.cfg.AccessLog != "" {
		if h.entries, err = p.openAccessLog(); err != nil {
			return err
		}
		config.AccessLog = h.entries
	}
	config.AltSvc = p.altSvc()
	if p.sockets.https != nil {
		config.Secure = p.cfg.secureURL(p.sockets.https.Addr())
	}
	if source != nil {
		config.Challenges = challenges{h, source, p.log.With("part", "certificates")}
	}
	if config.Own, err = p.serveAPIHost(ctx, h, api); err != nil {
		return err
	}
	h.server = ingress.New(config)
	if p.sockets.https != nil {
		certificates, err := p.startVisitorCertificates(h, source)
		if err != nil {
			return err
		}
		p.serveHTTPS(h.server, certificates)
		if err := p.serveHTTP3(h.server, certificates); err != nil {
			return err
		}
	}
	if p.sockets.tls != nil {
		p.serveVisitors("public hosts of tls", func() error { return h.server.ServeTLS(p.cfg.heralded(p.sockets.tls), nil) })
	}
	if p.sockets.http != nil {
		p.serveVisitors("public hosts", func() error { return h.server.Serve(p.cfg.heralded(p.sockets.http)) })
	}
	return nil
}

// serveVisitors runs what takes visitors until the process ends: a drain that an
// operator asked for ends visitors, and not the process.
func (p *process) serveVisitors(name string, serve func() error) {
	p.run(name, func(ctx context.Context) error {
		err := serve()
		if err == nil {
			<-ctx.Done()
		}
		return err
	})
}

// leave takes no visitors from now on, and lets those who are there finish.
func (h *hostServer) leave() {
	if h.server == nil {
		return
	}
	h.leaving.Do(func() {
		close(h.going)
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
	if h.entries != nil {
		h.entries.Close()
	}
}

// openAccessLog begins the file of --access-log, which SIGHUP opens again.
func (p *process) openAccessLog() (*ingress.AccessLog, error) {
	l, err := ingress.OpenAccessLog(p.cfg.AccessLog, p.log.With("part", "access log"))
	if err != nil {
		return nil, fmt.Errorf("--access-log: %w", err)
	}
	p.run("SIGHUP", func(ctx context.Context) error {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGHUP)
		defer signal.Stop(asked)
		for {
			select {
			case <-asked:
				l.Reopen()
			case <-ctx.Done():
				return nil
			}
		}
	})
	p.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tunnox_access_log_dropped_total",
		Help: "Entries of the access log that were not written, because the disk was slow or failed."}, func() float64 { return float64(l.Dropped()) }))
	return l, nil
}

// name gives the name that mappings have for a host: the label below the base domain, or
// the whole of another domain. ok is false for what no mapping can have.
func (h *hostServer) name(host string) (name string, ok bool) {
	label, ours := strings.CutSuffix(host, "."+h.domain)
	if ours && !strings.Contains(label, ".") {
		return label, true
	}
	return host, host != h.domain && strings.Contains(host, ".") && net.ParseIP(host) == nil
}

// mapping gives the mapping that a host and path lead to, and the name that it has for
// the host. The error is one for [ingress].
func (h *hostServer) mapping(ctx context.Context, host, path, visitor string) (m domain.Versioned[domain.Mapping], name string, err error) {
	name, ok := h.name(host)
	if !ok || host == h.apiHost {
		return m, name, ingress.ErrNoSite
	}
	m, err = h.f.Host(ctx, name, path, visitor)
	switch {
	case errors.Is(err, forwarder.ErrNoHost):
		err = ingress.ErrNoSite
	case errors.Is(err, forwarder.ErrBusy):
		err = &ingress.Unreachable{Status: http.StatusTooManyRequests, Code: string(wire.TooMany),
			Sentence: "Too many requests are for names that nobody has here. Try again in a moment.", Err: err}
	case err != nil:
		err = ingress.NotLookedUp(err)
	}
	return m, name, err
}

// Pass finds the way for visitors of tls mappings, for [ingress.Config].
func (h *hostServer) Pass(ctx context.Context, host, visitor string) (ingress.Passage, error) {
	m, name, err := h.mapping(ctx, host, "/", visitor)
	if err != nil || m.State.Protocol != domain.ProtocolTLS {
		return nil, err
	}
	return func(visitor net.Conn, first []byte) error {
		conn, ok := visitor.(*net.TCPConn)
		if heralded, is := visitor.(*proxyheader.Conn); is {
			conn, ok = heralded.TCPConn, true // its header was read before the hello
		}
		if !ok {
			return fmt.Errorf("a visitor of %s came over %T, which is not TCP", host, visitor)
		}
		if err := h.f.PassHost(name, m.State.ID, conn, visitor.RemoteAddr(), visitor.LocalAddr(), first); err != nil {
			h.log.Debug("a visitor was refused", "mapping", m.State.ID, "host", host, "error", err)
			return unreachable(err)
		}
		return nil
	}, nil
}

// Find implements ingress.Finder.
func (h *hostServer) Find(ctx context.Context, host, path, visitor string) (ingress.Site, error) {
	m, name, err := h.mapping(ctx, host, path, visitor)
	if err == nil && m.State.Protocol != domain.ProtocolHTTP {
		err = ingress.ErrNoSite
	}
	if err != nil {
		return ingress.Site{}, err
	}
	site := siteOf(&m.State)
	site.Access.Login = h.login(&m.State)
	// A connection to a target that was found to be down is not used again.
	site.Version, site.Dial = int64(m.Version)<<20+h.f.Ailments(m.State.ID)&(1<<20-1), func(_ context.Context, visitor string) (net.Conn, error) {
		conn, err := h.f.DialHost(name, m.State.ID, visitor)
		if err != nil {
			return nil, unreachable(err)
		}
		return conn, nil
	}
	return site, nil
}

// siteOf gives the settings of a mapping for its public host.
func siteOf(m *domain.Mapping) ingress.Site {
	site := ingress.Site{Mapping: m.ID, Scheme: m.TargetScheme, ServerName: serverName(m.TargetHost)}
	if a := m.Access; a != nil {
		site.Access.Admits = a.Admits
		for _, visitor := range a.Basic {
			if site.Access.Logins == nil {
				site.Access.Logins = map[string]string{}
			}
			site.Access.Logins[visitor.Username] = visitor.Password
		}
	}
	if o := m.HTTP; o != nil {
		site.HostHeader, site.StripPrefix = o.HostHeader, o.StripPrefix
		site.Request, site.Response = headerChanges(o.RequestHeaders), headerChanges(o.ResponseHeaders)
	}
	return site
}

func headerChanges(c *domain.HeaderChanges) ingress.HeaderChanges {
	if c == nil {
		return ingress.HeaderChanges{}
	}
	return ingress.HeaderChanges{Remove: c.Remove, Set: c.Set}
}

// serverName gives the name for SNI. An address is no such name.
func serverName(host string) string {
	if net.ParseIP(host) != nil {
		return ""
	}
	return host
}

// unreachable tells a visitor which step on the way to the service failed. It does not
// show the words of the agent, which may describe its network; they are for the log.
func unreachable(err error) error {
	code := wire.CodeOf(err)
	u := &ingress.Unreachable{Code: string(code), Err: err}
	switch code {
	case wire.NoSuchMapping, wire.MappingDisabled, wire.VisitorDenied:
		return ingress.ErrNoSite
	case wire.TargetOffline:
		u.Sentence = "The machine behind this address is not connected at the moment."
	case wire.DialRefused:
		u.Sentence = "The machine behind this address is connected, but no program listens at the port of the service."
	case wire.DialTimeout:
		u.Sentence = "The machine behind this address is connected, but the service did not accept the connection in time."
	case wire.DialUnreachable:
		u.Sentence = "The machine behind this address is connected, but it cannot reach the service."
	case wire.PolicyDenied:
		u.Sentence = "The machine behind this address is connected, but its owner does not allow this service."
	case wire.TargetOverloaded:
		u.Sentence = "The machine behind this address is connected, but it did not answer in time."
	case wire.QuotaConnections:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "This address has as many connections as its owner may have. Try again soon."
	case wire.QuotaTraffic:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "The owner of this address has used up the traffic of this month."
	case wire.NodeDraining, wire.ShuttingDown:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "This server is shutting down. Try again in a moment."
	case wire.TooMany:
		u.Status, u.Sentence = http.StatusServiceUnavailable, "Too many visitors came at once. Try again in a moment."
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
	errs = append(errs, c.checkAPIHost()...)
	for flag, text := range map[string]string{"advertise-http": c.AdvertiseHTTP, "advertise-tls": c.AdvertiseTLS} {
		if text == "" {
			continue
		}
		u, err := url.Parse(strings.Replace(text, "*.", "", 1))
		if err != nil || u.Scheme != "https" && (u.Scheme != "http" || flag == "advertise-tls") || u.Host == "" || strings.Trim(u.Path, "/") != "" ||
			u.RawQuery != "" || !strings.HasPrefix(text, u.Scheme+"://*.") {
			errs = append(errs, fmt.Errorf("--%s: %q is not such as https://*.t.example.org", flag, text))
		}
	}
	return errs
}

// checkHostsTogether gives what is wrong with them together.
func (c *config) checkHostsTogether() error {
	serves, passes := c.HTTP != "" || c.HTTPS != "", c.HTTPS != "" || c.TLS != ""
	ofDomain := func(text string) bool {
		u, err := url.Parse(strings.Replace(text, "*.", "", 1))
		return text == "" || err == nil && u.Hostname() == c.BaseDomain
	}
	switch {
	case (serves || passes) && c.BaseDomain == "":
		return usageError{errors.New("--http, --https and --tls need --base-domain: the public hosts are its names")}
	case !serves && !passes && c.BaseDomain != "":
		return usageError{errors.New("--base-domain needs --http, --https or --tls, which serve its names")}
	case !serves && c.AdvertiseHTTP != "":
		return usageError{errors.New("--advertise-http needs --http or --https")}
	case !passes && c.AdvertiseTLS != "":
		return usageError{errors.New("--advertise-tls needs --tls or --https")}
	case !ofDomain(c.AdvertiseHTTP):
		return usageError{fmt.Errorf("--advertise-http must be of --base-domain, for example https://*.%s", c.BaseDomain)}
	case !ofDomain(c.AdvertiseTLS):
		return usageError{fmt.Errorf("--advertise-tls must be of --base-domain, for example https://*.%s", c.BaseDomain)}
	case c.HTTPS != "" && c.Certificate == "" && c.ACME == "" && c.Control == "":
		return usageError{errors.New("--https needs --acme, which gets certificates from an authority such as Let's Encrypt, or --certificate and --certificate-key; --tls, for tls mappings alone, needs none")}
	case c.ACME != "" && c.HTTPS == "" && c.State == "":
		return usageError{errors.New("--acme needs --https, where the certificates are used, or --state for forwarders with --https")}
	case c.HTTPS == "" && (c.Certificate != "" || c.CertificateKey != ""):
		return usageError{errors.New("--certificate and --certificate-key need --https")}
	}
	if c.HTTP3 != "" && c.HTTP3 != quicOff && c.HTTPS == "" {
		return usageError{errors.New("--http3 needs --https: it serves the same hosts with the same certificates")}
	}
	if c.APIHost != "" && c.HTTPS == "" {
		return usageError{errors.New("--api-host needs --https, which serves it")}
	}
	_, err := c.certificatePairs()
	return err
}

// hostsURL is the URL of public hosts, with * for the name: https where there is --https.
func (p *process) hostsURL() string {
	switch {
	case p.sockets.http == nil && p.sockets.https == nil:
		return ""
	case p.cfg.AdvertiseHTTP != "":
		return strings.TrimSuffix(p.cfg.AdvertiseHTTP, "/")
	case p.sockets.https != nil:
		return "https://*." + withPort(p.cfg.BaseDomain, p.sockets.https.Addr(), "443")
	default:
		return "http://*." + withPort(p.cfg.BaseDomain, p.sockets.http.Addr(), "80")
	}
}

// tlsURL is the URL of public hosts whose TLS is passed through, "" for none.
func (p *process) tlsURL() string {
	switch {
	case p.cfg.AdvertiseTLS != "":
		return strings.TrimSuffix(p.cfg.AdvertiseTLS, "/")
	case p.sockets.tls != nil:
		return "https://*." + withPort(p.cfg.BaseDomain, p.sockets.tls.Addr(), "443")
	case p.sockets.https == nil:
		return ""
	case strings.HasPrefix(p.cfg.AdvertiseHTTP, "https:"):
		return p.hostsURL()
	default:
		return "https://*." + withPort(p.cfg.BaseDomain, p.sockets.https.Addr(), "443")
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
