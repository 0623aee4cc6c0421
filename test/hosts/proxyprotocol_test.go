package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// toldService is a service that wants a header of the PROXY protocol, by somebody else's
// library. It answers at once with what it was told, and then sends back what it gets.
func toldService(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := &proxyproto.Listener{Listener: l, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := told.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				h := c.(*proxyproto.Conn).ProxyHeader()
				if h == nil {
					return
				}
				_, _ = fmt.Fprintf(c, "v%d %s %s\n", h.Version, c.RemoteAddr(), c.LocalAddr())
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return port(t, l.Addr().String())
}

// banner connects to an address, from another one if that is not "", sends what a proxy
// says, and gives the service's first line with the visitor's own address.
func banner(from, address, says string) (line, own string, after time.Duration, err error) {
	d := net.Dialer{Timeout: limit}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	began := time.Now()
	c, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return "", "", 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, says); err != nil {
		return "", "", 0, err
	}
	in := bufio.NewReader(c)
	line, err = in.ReadString('\n')
	after = time.Since(began)
	if err != nil {
		return line, "", after, err
	}
	// The header is not among what the visitor gets back, and everything else is.
	if _, err := io.WriteString(c, "hello"); err != nil {
		return line, "", after, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return line, "", after, err
	}
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "hello" {
		return line, "", after, fmt.Errorf("sent hello, got %q, %w", rest, err)
	}
	return strings.TrimSpace(line), c.LocalAddr().String(), after, nil
}

// The service is told the visitor's address in the version that it understands, over the
// bridge as well, for visitors who say nothing; and a proxy in front may say who that is,
// if it was named.
func TestProxyProtocol(t *testing.T) {
	watch := pace.Measure(t)
	for form, start := range map[string]func(*testing.T, ...string) *world{
		"embedded":       func(t *testing.T, args ...string) *world { return embedded(t, args...) },
		"two forwarders": func(t *testing.T, args ...string) *world { return cluster(t, 1, args...) },
	} {
		t.Run(form, func(t *testing.T) {
			// Of this form alone: the server of the other one may still have its ports.
			first := programs.FreePort(t)
			w := start(t, "--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1", "--proxy-protocol-from", "127.0.0.2, 127.0.0.9/32")
			service := toldService(t)
			create := func(more map[string]any) (made struct {
				ID      int64  `json:"mapping_id"`
				Address string `json:"public_address"`
				Version string `json:"proxy_protocol"`
			}) {
				t.Helper()
				body := map[string]any{"user_id": w.user.ID, "target_client_id": w.target.ID, "protocol": "tcp", "target": fmt.Sprintf("127.0.0.1:%d", service)}
				for name, value := range more {
					body[name] = value
				}
				programs.Eventually(t, limit, func() error {
					answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", body)
					if err == nil && answer.Status != http.StatusCreated {
						err = fmt.Errorf("%d %s", answer.Status, answer.Body)
					}
					if err == nil {
						answer.Read(t, &made)
					}
					return err
				})
				t.Cleanup(func() { _, _ = w.api.Call(http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", made.ID), nil) })
				return made
			}
			hears := func(from, address, says string, want func(own string) string) {
				t.Helper()
				programs.Eventually(t, limit, func() error {
					line, own, _, err := banner(from, address, says)
					if err == nil && line != want(own) {
						err = fmt.Errorf("the service was told %q, want %q", line, want(own))
					}
					return err
				})
			}
			public := create(map[string]any{"public_port": 0, "proxy_protocol": "v2"})
			if public.Version != "v2" {
				t.Errorf("created %+v", public)
			}
			hears("", public.Address, "", func(own string) string { return "v2 " + own + " " + public.Address })
			best := time.Hour
			for range 5 {
				if _, _, after, err := banner("", public.Address, ""); err == nil {
					best = min(best, after)
				}
			}
			t.Logf("a silent visitor gets the banner after %v", best)
			if best > watch.Allow(100*time.Millisecond) {
				t.Errorf("a silent visitor gets the banner after %v", best)
			}

			w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", public.ID), map[string]any{"proxy_protocol": "v1"}, nil)
			hears("", public.Address, "", func(own string) string { return "v1 " + own + " " + public.Address })

			// Behind a proxy that was named.
			told := func(string) string { return "v1 192.0.2.7:41000 198.51.100.1:443" }
			hears("127.0.0.2", public.Address, "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\n", told)
			v2, err := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 41000}, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 443}).Format()
			if err != nil {
				t.Fatal(err)
			}
			hears("127.0.0.9", public.Address, string(v2), told)
			hears("127.0.0.2", public.Address, "PROXY UNKNOWN\r\n", func(own string) string { return "v1 " + own + " " + public.Address })
			// One that was named and sends none is cut off, and one that was not is not believed.
			if line, _, _, err := banner("127.0.0.2", public.Address, "GET / HTTP/1.1\r\n\r\n"); err == nil || line != "" {
				t.Errorf("a proxy that says nothing of the visitor gets %q, %v", line, err)
			}
			if line, _, _, err := banner("127.0.0.3", public.Address, "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\n"); !strings.HasPrefix(line, "v1 127.0.0.3:") || err == nil || !strings.Contains(err.Error(), "PROXY TCP4") {
				t.Errorf("a visitor who lies: the service was told %q, %v", line, err)
			}

			// The agent's listener, and a unix socket would be the same.
			source := w.api.CreateClient(t, w.user.ID, "source")
			w.entry.Join(t, w.api, source)
			local := programs.FreePort(t)
			create(map[string]any{"source_client_id": source.ID, "local_port": local, "proxy_protocol": "v2"})
			listens := fmt.Sprintf("127.0.0.1:%d", local)
			hears("127.0.0.3", listens, "", func(own string) string { return "v2 " + own + " " + listens })

			// A web service hears it in the header.
			web := web(t, func(out http.ResponseWriter, in *http.Request) { fmt.Fprint(out, in.Header.Get("X-Forwarded-For")) })
			m := w.publish(web, nil)
			w.answers(m.URL, 200, "127.0.0.1")
			ask := "GET / HTTP/1.1\r\nHost: " + m.Host + "." + baseDomain + "\r\nConnection: close\r\n\r\n"
			if status, answer := rawFrom(t, "127.0.0.2", w.address, "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\n"+ask); status != 200 || !strings.HasSuffix(answer, "192.0.2.7") {
				t.Errorf("behind a proxy: %d %q", status, answer)
			}
			if status, answer := rawFrom(t, "127.0.0.2", w.address, ask); status == 200 || strings.Contains(answer, "127.0.0.2") {
				t.Errorf("a proxy that says nothing of the visitor: %d %q", status, answer)
			}
			if status, answer := rawFrom(t, "127.0.0.3", w.address, "PROXY TCP4 192.0.2.7 198.51.100.1 41000 443\r\n"+ask); status != 400 {
				t.Errorf("a visitor who lies: %d %q", status, answer)
			}
			w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", m.ID), map[string]any{"proxy_protocol": "v1"})
			w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", public.ID), map[string]any{"proxy_protocol": "v3"})
		})
	}
}

// rawFrom sends bytes from an address of this machine and gives what comes back.
func rawFrom(t testing.TB, from, address, text string) (status int, answer string) {
	t.Helper()
	d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, text); err != nil {
		return 0, ""
	}
	all, _ := io.ReadAll(c) // a reset at the end takes nothing from what came
	if _, err := fmt.Sscanf(string(all), "HTTP/1.1 %d", &status); err != nil {
		status = 0
	}
	return status, string(all)
}
