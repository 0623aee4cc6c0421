package ingress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	maxSites     = 1024             // whose idle connections are kept
	idlePerSite  = 32               // idle connections to one service
	idleLifetime = 60 * time.Second // of such a connection
)

// sites keeps idle connections to services, apart for each mapping and version, so
// that a changed mapping never uses what was dialled for the old one.
type sites struct {
	mu     sync.Mutex
	kept   map[int64]*keptSite
	closed bool
}

type keptSite struct {
	version int64
	used    time.Time
	// pooled is for requests that can be sent again when the kept connection turns
	// out to be dead; fresh dials for each of the others, because the visitor must
	// not pay for a connection that died while it was kept. An HTTP/2 service says by
	// which request it has gone away, and all go over one connection.
	pooled, fresh *http.Transport
}

func newSites() *sites { return &sites{kept: map[int64]*keptSite{}} }

type visitorAddress struct{}

// transport gives what carries a request to the site.
func (s *sites) transport(site Site, repeatable bool) http.RoundTripper {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[site.Mapping]
	if k == nil || k.version != site.Version {
		if k != nil {
			k.close()
		}
		k = newKept(site)
		if !s.closed {
			s.kept[site.Mapping] = k
			s.shrink()
		}
	}
	k.used = time.Now()
	if (repeatable || site.Scheme == SchemeH2C) && !s.closed {
		return k.pooled
	}
	return k.fresh
}

// shrink forgets the site that was used least recently when there are too many.
func (s *sites) shrink() {
	if len(s.kept) <= maxSites {
		return
	}
	var oldest int64
	var at time.Time
	for id, k := range s.kept {
		if at.IsZero() || k.used.Before(at) {
			oldest, at = id, k.used
		}
	}
	s.kept[oldest].close()
	delete(s.kept, oldest)
}

func newKept(site Site) *keptSite {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		visitor, _ := ctx.Value(visitorAddress{}).(string)
		return site.Dial(ctx, visitor)
	}
	pooled := &http.Transport{
		DialContext: dial,
		// Bodies, lengths and Content-Encoding stay as the service made them.
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idlePerSite,
		IdleConnTimeout:        idleLifetime,
		MaxResponseHeaderBytes: 1 << 20,
		// A service that does not answer "Expect: 100-continue" gets the body after
		// this time, as curl does it.
		ExpectContinueTimeout: time.Second,
		Protocols:             new(http.Protocols),
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		TLSHandshakeTimeout:   10 * time.Second,
	}
	switch site.Scheme {
	case SchemeH2C:
		pooled.Protocols.SetUnencryptedHTTP2(true)
	case SchemeHTTPS:
		pooled.Protocols.SetHTTP1(true)
		pooled.Protocols.SetHTTP2(true)
		pooled.TLSClientConfig = site.tls()
	default:
		pooled.Protocols.SetHTTP1(true)
	}
	fresh := pooled.Clone()
	fresh.DisableKeepAlives = true
	return &keptSite{version: site.Version, pooled: pooled, fresh: fresh}
}

// Schemes of services.
const (
	SchemeHTTP  = "http"
	SchemeHTTPS = "https"
	SchemeH2C   = "h2c" // HTTP/2 by prior knowledge
)

// tls is how an https service is spoken to.
func (site Site) tls() *tls.Config {
	return &tls.Config{ServerName: site.ServerName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see Site.Scheme
}

func (k *keptSite) close() { k.pooled.CloseIdleConnections() }

func (s *sites) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, k := range s.kept {
		k.close()
		delete(s.kept, id)
	}
}
