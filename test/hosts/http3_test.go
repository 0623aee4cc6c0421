package hosts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// overHTTP3 gives a client that reaches every host at one UDP address.
func overHTTP3(t testing.TB, address string, roots *x509.CertPool) *http.Client {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true,
		Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address, config, settings)
		}}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, Timeout: limit}
}

// http3 holds that a visitor over TLS is told of HTTP/3, and that over it the same hosts
// are found, with the same rules.
func (w *world) http3(t *testing.T, secure string, roots *x509.CertPool, m mapping) {
	address := w.addresses()["http3"]
	if address != secure {
		t.Errorf("addresses.json has http3 %q, want %s", address, secure)
	}
	res, err := secureVisitors(t, secure, roots, true).Get(m.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if want := fmt.Sprintf(`h3=":%d"; ma=86400`, port(t, secure)); res.Header.Get("Alt-Svc") != want {
		t.Errorf("over HTTP/2 Alt-Svc is %q, want %q", res.Header.Get("Alt-Svc"), want)
	}
	client := overHTTP3(t, address, roots)
	host := strings.TrimSuffix(strings.TrimPrefix(m.URL, "https://"), "/")
	res, err = client.Get(m.URL + "a?b")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if want := host + " /a?b https"; err != nil || string(body) != want || res.ProtoMajor != 3 || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("%s answers %q %q, %v, want %q", res.Proto, body, res.Header, err, want)
	}

	echo := w.publish(web(t, func(rw http.ResponseWriter, in *http.Request) {
		fmt.Fprintf(rw, "%q ", in.Header["Authorization"])
		_, _ = io.Copy(rw, in.Body)
	}), map[string]any{"public_host": "kept", "access": map[string]any{"deny": []string{"127.0.0.9"},
		"basic": []any{map[string]any{"username": "ann", "password": "correct horse"}}}})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MB
	for password, want := range map[string]int{"wrong": 401, "correct horse": 200} {
		req, err := http.NewRequest(http.MethodPost, echo.URL, bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("ann", password)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != want || want == 200 && string(body) != "[] "+string(sent) {
			t.Errorf("with the password %q: %s, %d bytes, %v", password, res.Status, len(body), err)
		}
	}
	res, err = client.Get("https://nobody." + host[strings.Index(host, ".")+1:] + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("a host that nobody has answers %s", res.Status)
	}
}
