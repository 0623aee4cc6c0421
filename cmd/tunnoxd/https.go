package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/certs"
	"github.com/tunnox-net/tunnox/ingress"
)

// serveHTTPS begins to serve visitors over TLS.
func (p *process) serveHTTPS(server *ingress.Server, certificates *visitorCertificates) {
	p.serveVisitors("public hosts over TLS", func() error { return server.ServeTLS(p.cfg.heralded(p.sockets.https), certificates.Certificate) })
}

// certificatePairs gives the files of --certificate and --certificate-key.
func (c *config) certificatePairs() ([]certs.Pair, error) {
	if c.Certificate == "" {
		return nil, nil
	}
	chains, keys := strings.Split(c.Certificate, ","), strings.Split(c.CertificateKey, ",")
	if len(chains) != len(keys) {
		return nil, usageError{fmt.Errorf("--certificate names %d files and --certificate-key %d: each certificate needs its key", len(chains), len(keys))}
	}
	var pairs []certs.Pair
	for i := range chains {
		pair := certs.Pair{Certificate: strings.TrimSpace(chains[i]), Key: strings.TrimSpace(keys[i])}
		if pair.Certificate == "" || pair.Key == "" {
			return nil, usageError{errors.New("--certificate and --certificate-key: a file name is empty")}
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// secureURL gives the https URL for a request that came in at --http.
func (c *config) secureURL(bound net.Addr) func(host string, u *url.URL) string {
	return func(host string, u *url.URL) string {
		return "https://" + withPort(host, bound, "443") + u.RequestURI()
	}
}

// certificateEnds shows when the certificates of public hosts end.
type certificateEnds struct{ files *certs.Files }

var certificateEnd = prometheus.NewDesc("tunnox_certificate_end_seconds",
	"The end of a certificate of public hosts, in seconds since 1970, by its first name.", []string{"name"}, nil)

// Describe implements [prometheus.Collector].
func (certificateEnds) Describe(to chan<- *prometheus.Desc) { to <- certificateEnd }

// Collect implements [prometheus.Collector].
func (e certificateEnds) Collect(to chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, leaf := range e.files.Leaves() {
		name := leaf.Subject.CommonName
		if len(leaf.DNSNames) > 0 {
			name = leaf.DNSNames[0]
		}
		if seen[name] {
			continue // two series of one name would fail the whole scrape
		}
		seen[name] = true
		to <- prometheus.MustNewConstMetric(certificateEnd, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), name)
	}
}
