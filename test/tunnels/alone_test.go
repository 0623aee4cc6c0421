package tunnels

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestServeAlone: a server without a single setting for visitors gives its own machine
// URLs and ports, and so does a second one beside it.
func TestServeAlone(t *testing.T) {
	t.Parallel()
	first, second := worldOf(t, programs.Serve(t)), worldOf(t, programs.Serve(t))
	port := webService(t, "web")
	var hosts []string
	for _, w := range []*world{first, second} {
		laptop := w.machine("laptop")
		u, err := url.Parse(laptop.tunnel("http", port).ready.URL)
		if err != nil || !strings.HasSuffix(u.Hostname(), ".localhost") {
			t.Fatalf("the URL is %v, %v", u, err)
		}
		hosts = append(hosts, u.Host)
		// Resolvers of test machines do not all know the names below localhost.
		if body, err := loopbackGet(u); body != "web" || err != nil {
			t.Errorf("%s answers %q, %v", u, body, err)
		}
	}
	if strings.SplitN(hosts[0], ":", 2)[1] == strings.SplitN(hosts[1], ":", 2)[1] {
		t.Errorf("two servers on one port: %v", hosts)
	}
	at := first.machine("another").tunnel("tcp", port).ready.Address
	host, open, err := net.SplitHostPort(at)
	if n, _ := strconv.Atoi(open); err != nil || host != "127.0.0.1" || n < 20000 || n > 20099 {
		t.Errorf("the public address is %q, %v", at, err)
	}
	if body, err := loopbackGet(&url.URL{Scheme: "http", Host: at, Path: "/"}); body != "web" || err != nil {
		t.Errorf("%s answers %q, %v", at, body, err)
	}
}

// An empty setting is a choice: nothing is opened.
func TestServeWithoutVisitors(t *testing.T) {
	t.Parallel()
	w := worldOf(t, programs.Serve(t, "--http=", "--public-ports="))
	laptop := w.machine("laptop")
	for _, kind := range []string{"http", "tcp"} {
		if said := laptop.refused(3, kind, "3000"); !strings.Contains(said, "--") {
			t.Errorf("tunnox %s does not name the missing setting: %s", kind, said)
		}
	}
}

func loopbackGet(u *url.URL) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", u.Port()))
		}}}
	resp, err := client.Get(u.String())
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(body), err
}
