package ingress

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config is what a server is made of.
type Config struct {
	Finder Finder
	// Trusted are the networks of proxies that are believed about where a request comes
	// from. Nobody else is believed.
	Trusted []netip.Prefix
	// Secure gives the https URL of a request that came without TLS. Such a request is
	// then redirected, when its host is published here. nil = it is served.
	Secure func(host string, u *url.URL) string
	// Pass gives the way for a TLS visitor at an address, who asks for a host in the
	// handshake, when TLS of the host is passed through unopened. nil = it is opened
	// here. It fails with [ErrNoSite] for a host that nobody has.
	Pass func(ctx context.Context, host, visitor string) (Passage, error)
	// AltSvc tells visitors over TLS, in the header of that name, where they find HTTP/3;
	// "" = nowhere.
	AltSvc string
	// Own are hosts that belong to no mapping, as [Host] writes them, with who answers
	// for them. They are served over TLS only.
	Own map[string]http.Handler
	// Challenges answers certificate authorities; nil = nobody does.
	Challenges Challenges
	Logger     *slog.Logger
	// Metrics count requests; nil = they are not counted.
	Metrics *Metrics
	// AccessLog has an entry of each request; nil = there is none.
	AccessLog *AccessLog
	// HeaderTimeout bounds the time for a request's head. Default 10 s. There is no
	// such bound for bodies: an upload may take a day.
	HeaderTimeout time.Duration
	// IdleTimeout ends connections between requests. Default 75 s.
	IdleTimeout time.Duration
}

// maxHeader bounds a request's head: net/http answers 431 beyond it. A stranger's
// connection can hold twice that while its head is read.
const maxHeader = 256 << 10

// Server serves visitors. New starts nothing; Serve blocks.
type Server struct {
	config   Config
	http     *http.Server
	sites    *sites
	doorman  *doorman
	upgraded sync.WaitGroup // exchanges outside of net/http
	ctx      context.Context
	cancel   context.CancelFunc

	door    sync.Mutex      // held while somebody is let in or the door is shut
	leaving context.Context // ends when nobody is let in any more
	left    context.CancelFunc
}

// New builds a server.
func New(config Config) *Server {
	if config.HeaderTimeout <= 0 {
		config.HeaderTimeout = 10 * time.Second
	}
	if config.IdleTimeout <= 0 {
		config.IdleTimeout = 75 * time.Second
	}
	s := &Server{config: config, sites: newSites(), doorman: newDoorman()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.leaving, s.left = context.WithCancel(s.ctx)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)            // over TLS
	protocols.SetUnencryptedHTTP2(true) // by prior knowledge only
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: config.HeaderTimeout,
		IdleTimeout:       config.IdleTimeout,
		// OPTIONS * is a question to the service too.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if v, ok := c.(*visitorConn); ok {
				return context.WithValue(ctx, visitorKey{}, v)
			}
			return ctx
		},
	}
	return s
}

// Serve takes visitors from the listener until Shutdown or Close, which is no error.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(visitorListener{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no new visitors and waits until the exchanges have ended, or ctx
// has. Connections without a request end at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.leave()
	err := s.http.Shutdown(ctx)
	done := make(chan struct{})
	go func() { s.upgraded.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, s.Close())
		<-done
	}
	s.sites.close()
	return err
}

// Close ends everything now.
func (s *Server) Close() error {
	s.leave()
	s.cancel()
	err := s.http.Close()
	s.sites.close()
	return err
}

// serve answers one request: with the service's answer, or with a page of ours.
func (s *Server) serve(w http.ResponseWriter, in *http.Request) {
	e := s.begin(w, in)
	defer e.end()
	s.answer(e, in)
	e.whole = true
}

func (s *Server) answer(w *exchange, in *http.Request) {
	if in.Method == http.MethodConnect || in.URL.Host != "" {
		// With an absolute form the Host header is not shown to us (net/http
		// replaces it), so nobody could tell whether the two agree.
		absoluteURI.write(w, in)
		return
	}
	if in.Host == refusedHost {
		badFraming.write(w, in)
		return
	}
	host, ok := Host(in.Host)
	if !ok {
		badHost.write(w, in)
		return
	}
	if name, secure := serverName(in); secure && !named(name, host) {
		misdirected.write(w, in)
		return
	}
	w.host = host
	if s.challenged(w, in, host) {
		return
	}
	life, done := lifetime(in)
	defer done()
	in = in.WithContext(life)
	if own := s.config.Own[host]; own != nil {
		s.serveOwn(w, in, host, own)
		return
	}
	site, err := s.config.Finder.Find(in.Context(), host, routePath(in.URL), in.RemoteAddr)
	switch {
	case errors.Is(err, ErrNoSite):
		noSuchSite.write(w, in)
	case err != nil:
		s.fail(w, in, err)
	case s.config.Secure != nil && scheme(in, s.config.Trusted) == "http":
		// 308 keeps the method and the body (RFC 9110, section 15.4.9).
		http.Redirect(w, in, s.config.Secure(host, in.URL), http.StatusPermanentRedirect)
	default:
		w.site = site
		if w.user, site.cookie, ok = s.admit(w, in, site, host); ok {
			if site.Access.Login != nil {
				site.user = w.user
			}
			s.carry(w, in, site)
		}
	}
}

// carry takes a request that may come in to its service.
func (s *Server) carry(w *exchange, in *http.Request, site Site) {
	if isWebSocket(in) {
		s.upgrade(w, in, site)
		return
	}
	s.proxy(w, in, site)
}

// fail answers with the page for an error on the way to the service.
func (s *Server) fail(w http.ResponseWriter, in *http.Request, err error) {
	p := broken
	var hop *Unreachable
	var timeout net.Error
	switch {
	case errors.As(err, &hop):
		p = page{cmp.Or(hop.Status, http.StatusBadGateway), hop.Code, hop.Sentence}
	case errors.Is(err, ErrNoSite): // it ended since it was found
		p = noSuchSite
	case errors.Is(err, errNotFound):
		p = unavailable
	case errors.As(err, &timeout) && timeout.Timeout():
		p = timedOut
	}
	s.config.Logger.Debug("request failed", "host", in.Host, "code", p.code, "error", err)
	p.write(w, in)
}

// errNotFound marks a host that could not be looked up.
var errNotFound = errors.New("ingress: the host could not be looked up")

// NotLookedUp wraps the reason for which a Finder could not find out whether there is such
// a site. The visitor is told to try again soon.
func NotLookedUp(err error) error { return errors.Join(errNotFound, err) }

// isWebSocket reports whether the request asks for an upgrade that is carried. Of
// all upgrades only this one is: h2c would smuggle requests past the host's rules
// (golang.org/issue/80416), and of others nobody knows where they end.
func isWebSocket(in *http.Request) bool {
	return in.ProtoMajor == 1 && in.Method == http.MethodGet && hasToken(in.Header.Values("Connection"), "upgrade") &&
		strings.EqualFold(in.Header.Get("Upgrade"), "websocket")
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
