package ingress

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Challenges answers certificate authorities, who look whether a host is served here
// before they give a certificate for it (RFC 8555).
type Challenges interface {
	// Content gives what a host shows under the token of a challenge HTTP-01; ok is
	// false when there is no such challenge, and the request is the service's.
	Content(ctx context.Context, host, token, visitor string) (content string, ok bool)
	// Certificate gives what a host shows for a challenge TLS-ALPN-01.
	Certificate(ctx context.Context, host, visitor string) (*tls.Certificate, error)
}

const (
	challengePath     = "/.well-known/acme-challenge/"
	challengeProtocol = "acme-tls/1" // RFC 8737, section 6.2
	maxToken          = 256          // bytes; those of Let's Encrypt have 43
)

// challenged answers a request of an authority. It is false for other requests, among
// them those for the challenges of a service that gets its certificate itself.
func (s *Server) challenged(w http.ResponseWriter, in *http.Request, host string) bool {
	token, ok := strings.CutPrefix(in.URL.Path, challengePath)
	if s.config.Challenges == nil || !ok || in.Method != http.MethodGet || token == "" || len(token) > maxToken || strings.Contains(token, "/") {
		return false
	}
	content, ok := s.config.Challenges.Content(in.Context(), host, token, in.RemoteAddr)
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, content) // who has gone is not told
	return true
}

// challengeConfig gives the settings for a visitor who wants to see the answer to a
// challenge TLS-ALPN-01 and nothing else; nil for other visitors.
func (s *Server) challengeConfig(hello *tls.ClientHelloInfo) *tls.Config {
	if s.config.Challenges == nil || !slices.Equal(hello.SupportedProtos, []string{challengeProtocol}) {
		return nil
	}
	return &tls.Config{NextProtos: []string{challengeProtocol}, MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host, ok := Host(hello.ServerName)
		if !ok {
			return nil, errRefused
		}
		return s.config.Challenges.Certificate(hello.Context(), host, hello.Conn.RemoteAddr().String())
	}}
}
