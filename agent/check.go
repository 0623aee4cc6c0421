package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/wire"
)

// checkLongest bounds a check, whatever the forwarder waits.
const checkLongest = time.Minute

// checkService sees whether the service behind a connection is as it must be: it is there
// already, and answers a GET with a status below 400 where what is a URL. Its certificate
// is not verified, as for visitors.
func checkService(ctx context.Context, conn net.Conn, what string) error {
	scheme, _, isURL := strings.Cut(what, "://")
	if !isURL {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkLongest)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, what, nil)
	if err != nil {
		return fmt.Errorf("check %q: %w: %w", what, err, wire.Malformed)
	}
	request.Header.Set("User-Agent", "tunnox-health-check")
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols),
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}} //nolint:gosec // a service of the owner's own network, as visitors get it
	if scheme == "h2c" {
		request.URL.Scheme = "http"
		transport.Protocols.SetUnencryptedHTTP2(true)
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("check %s: %w: %w", what, err, wire.DialUnreachable)
	}
	_ = answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		return &wire.Refusal{Code: wire.DialUnreachable, Message: fmt.Sprintf("the service answers its health check with %d", answer.StatusCode)}
	}
	return nil
}
