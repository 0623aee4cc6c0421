package hosts

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/tunnox-net/tunnox/test/programs"
)

// byName is a world whose server passes TLS through, at an address for that alone.
type byName struct {
	*world
	tls string // address
}

// passing runs a test in every form, without any certificate at the server.
func passing(t *testing.T, test func(t *testing.T, w *byName)) {
	for form, start := range map[string]func(testing.TB, ...string) *world{
		"embedded":       embedded,
		"one forwarder":  func(t testing.TB, more ...string) *world { return cluster(t, 0, more...) },
		"two forwarders": func(t testing.TB, more ...string) *world { return cluster(t, 1, more...) },
	} {
		t.Run(form, func(t *testing.T) {
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
			test(t, &byName{start(t, "--tls", address), address})
		})
	}
}

// secureService is a TLS service with a certificate of its own, and who trusts it. It
// serves each connection after the handshake.
func secureService(t testing.TB, config *tls.Config, serve func(*tls.Conn)) (port int, roots *x509.CertPool) {
	t.Helper()
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "service.pem"), filepath.Join(folder, "service.key")
	roots = writeCertificate(t, certificate, key)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	return programs.Listen(t, func(c *net.TCPConn) {
		secure := tls.Server(c, config)
		_ = c.SetDeadline(time.Now().Add(limit))
		if secure.Handshake() == nil {
			serve(secure)
		}
		_ = secure.Close()
	}).Port, roots
}

// echoName sends back what it gets, behind the name that the visitor asked for and the
// protocol they agreed on.
func echoName(c *tls.Conn) {
	state := c.ConnectionState()
	fmt.Fprintf(c, "%s/%s:", state.ServerName, state.NegotiatedProtocol)
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// publishTLS makes a tls mapping to a port of this machine.
func (w *byName) publishTLS(port int, more map[string]any) mapping {
	w.t.Helper()
	body := map[string]any{"protocol": "tls"}
	for name, value := range more {
		body[name] = value
	}
	return w.publish(port, body)
}

// say sends a word over TLS and gives the answer.
func say(address string, config *tls.Config, word string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return sayOver(conn, config, word)
}

func sayOver(conn net.Conn, config *tls.Config, word string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(limit))
	c := tls.Client(conn, config)
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

// alerts are the alerts of TLS as crypto/tls says that it heard them.
const (
	unrecognizedName = "unrecognized name"
	internalError    = "internal error"
	missingExtension = "missing extension"
)

func (w *byName) hears(config *tls.Config, want string) {
	w.t.Helper()
	programs.Eventually(w.t, limit, func() error {
		got, err := say(w.tls, config, "hello")
		if err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("%s answers %q, %v, want the alert %s", config.ServerName, got, err, want)
		}
		return nil
	})
}

func (w *byName) answersAs(config *tls.Config, want string) {
	w.t.Helper()
	programs.Eventually(w.t, limit, func() error {
		got, err := say(w.tls, config, "hello")
		if err != nil || got != want {
			return fmt.Errorf("%s answers %q, %v, want %q", config.ServerName, got, err, want)
		}
		return nil
	})
}

// A mapping of protocol tls has a host, whose visitors are passed through unopened: they
// see the certificate of the service, and the server needs none.
func TestPublicHostByName(t *testing.T) {
	t.Parallel()
	passing(t, func(t *testing.T, w *byName) {
		service, roots := secureService(t, &tls.Config{NextProtos: []string{"acme-tls/1", "mqtt"}}, echoName)
		m := w.publishTLS(service, nil)
		name := m.Host + "." + baseDomain
		_, at, _ := strings.Cut(w.tls, ":")
		if m.Source != nil || m.Path != "/" || m.URL != fmt.Sprintf("https://%s:%s/", name, at) || w.addresses()["tls"] != w.tls {
			t.Fatalf("created %+v at %v", m, w.addresses())
		}
		visitor := &tls.Config{RootCAs: roots, ServerName: name}
		w.answersAs(visitor, name+"/:hello")
		for _, protocol := range []string{"mqtt", "acme-tls/1"} {
			w.answersAs(&tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{protocol}}, name+"/"+protocol+":hello")
		}
		w.answersAs(&tls.Config{InsecureSkipVerify: true, ServerName: strings.ToUpper(name)}, strings.ToUpper(name)+"/:hello")

		t.Run("in pieces", func(t *testing.T) {
			conn, err := net.DialTimeout("tcp", w.tls, limit)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			quantum := &tls.Config{RootCAs: roots, ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
			if got, err := sayOver(&slow{Conn: conn}, quantum, "hello"); err != nil || got != name+"/:hello" {
				t.Errorf("it answers %q, %v", got, err)
			}
		})
		t.Run("much both ways", func(t *testing.T) {
			word := strings.Repeat("0123456789abcdef", 1<<16)
			programs.Eventually(t, limit, func() error {
				conn, err := tls.Dial("tcp", w.tls, visitor)
				if err != nil {
					return err
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(limit))
				go func() { _, _ = io.WriteString(conn, word); _ = conn.CloseWrite() }()
				if got, err := io.ReadAll(conn); err != nil || string(got) != name+"/:"+word {
					return fmt.Errorf("%d bytes came back, %w", len(got), err)
				}
				return nil
			})
		})

		w.hears(&tls.Config{ServerName: "nobody." + baseDomain}, unrecognizedName)
		w.hears(&tls.Config{ServerName: "other.example.com"}, unrecognizedName)
		w.hears(&tls.Config{InsecureSkipVerify: true}, missingExtension)
		w.answers("http://"+name+"/", 404, "Nothing is published") // HTTP is not what it carries

		w.entry.Kill()
		w.entry.Restart(t)
		w.answersAs(visitor, name+"/:hello")
		w.agent.Kill()
		w.hears(visitor, internalError)
		w.agent = w.exit.Join(t, w.api, programs.Client{ID: w.target.ID, AuthCode: w.target.AuthCode})
		w.answersAs(visitor, name+"/:hello")

		path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
		w.api.Do(t, http.MethodPost, path+"/disable", nil, nil)
		w.hears(visitor, unrecognizedName)
		w.api.Do(t, http.MethodPost, path+"/enable", nil, nil)
		w.answersAs(visitor, name+"/:hello")
		w.api.Do(t, http.MethodPut, path, map[string]any{"public_host": "calm-heron"}, nil)
		w.answersAs(&tls.Config{RootCAs: roots, ServerName: "calm-heron." + baseDomain}, "calm-heron."+baseDomain+"/:hello")
		w.hears(visitor, unrecognizedName)

		t.Run("limit", func(t *testing.T) {
			w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", w.user.ID), map[string]any{"max_connections_per_mapping": 1}, nil)
			heron := &tls.Config{RootCAs: roots, ServerName: "calm-heron." + baseDomain}
			var held *tls.Conn
			programs.Eventually(t, limit, func() (err error) {
				held, err = tls.Dial("tcp", w.tls, heron)
				return err
			})
			w.hears(heron, internalError)
			programs.Eventually(t, limit, func() error { // counted as any other connection
				answer, err := w.api.Call(http.MethodGet, "/api/v1/stats/realtime", nil)
				if err == nil && !strings.Contains(string(answer.Body), `"connections_open":1`) {
					err = fmt.Errorf("now: %s", answer.Body)
				}
				return err
			})
			_ = held.Close()
			w.answersAs(heron, "calm-heron."+baseDomain+"/:hello")
		})
		w.api.Do(t, http.MethodDelete, path, nil, nil)
		w.hears(&tls.Config{ServerName: "calm-heron." + baseDomain}, unrecognizedName)
	})
}

// slow writes byte by byte, as long as the hello is.
type slow struct {
	net.Conn
	written int
}

func (s *slow) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		m := len(b) - n
		if s.written < 2000 {
			m = 1
		}
		m, err = s.Conn.Write(b[n : n+m])
		n, s.written = n+m, s.written+m
	}
	return n, err
}

// Programs of others are passed through: openssl sees the chain of the service, and curl
// speaks HTTP/2 with it.
func TestProgramsByName(t *testing.T) {
	passing(t, func(t *testing.T, w *byName) {
		service, _ := secureService(t, &tls.Config{}, echoName)
		m := w.publishTLS(service, map[string]any{"public_host": "shop"})
		name := "shop." + baseDomain
		w.answersAs(&tls.Config{InsecureSkipVerify: true, ServerName: name}, name+"/:hello")
		out, err := exec.Command("openssl", "s_client", "-connect", w.tls, "-servername", name).CombinedOutput() // its input is empty, so that it ends after the handshake
		if err != nil || !bytes.Contains(out, []byte("Server certificate")) || !bytes.Contains(out, []byte("CN = "+baseDomain)) {
			t.Errorf("openssl says %s, %v", out, err)
		}
		out, _ = exec.Command("openssl", "s_client", "-connect", w.tls, "-servername", "nobody."+baseDomain).CombinedOutput() // it fails, as it should
		if !bytes.Contains(out, []byte("unrecognized name")) {
			t.Errorf("for a name that nobody has openssl says %s", out)
		}

		site := http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, in *http.Request) { fmt.Fprintf(rw, "%s %s %s", in.Proto, in.Host, in.URL) })}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		folder := t.TempDir()
		certificate, key := filepath.Join(folder, "site.pem"), filepath.Join(folder, "site.key")
		writeCertificate(t, certificate, key)
		served := make(chan struct{})
		go func() { defer close(served); _ = site.ServeTLS(l, certificate, key) }()
		t.Cleanup(func() { _ = site.Close(); <-served })
		w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", m.ID), map[string]any{"target_port": l.Addr().(*net.TCPAddr).Port}, nil)
		_, at, _ := strings.Cut(w.tls, ":")
		programs.Eventually(t, limit, func() error {
			out, err := exec.Command("curl", "-sS", "--cacert", certificate, "--resolve", name+":"+at+":127.0.0.1", m.URL+"a?b").CombinedOutput()
			if want := fmt.Sprintf("HTTP/2.0 %s:%s /a?b", name, at); err != nil || string(out) != want {
				return fmt.Errorf("curl says %q, %w, want %q", out, err, want)
			}
			return nil
		})
	})
}

// A hello whose name is encrypted (ECH) is passed to the host of its outer name, and the
// service opens it.
func TestEncryptedHello(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := &byName{embedded(t, "--tls", address), address}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	outer, inner := "shop."+baseDomain, "secret."+baseDomain
	config := echConfig(private.PublicKey().Bytes(), outer)
	service, roots := secureService(t, &tls.Config{EncryptedClientHelloKeys: []tls.EncryptedClientHelloKey{{Config: config, PrivateKey: private.Bytes()}}}, echoName)
	w.publishTLS(service, map[string]any{"public_host": "shop"})
	list := binary.BigEndian.AppendUint16(nil, uint16(len(config)))
	w.answersAs(&tls.Config{RootCAs: roots, ServerName: inner, EncryptedClientHelloConfigList: append(list, config...)}, inner+"/:hello")
}

// echConfig writes an ECHConfig (draft-ietf-tls-esni, section 4) for a key and the name
// that everybody may see.
func echConfig(public []byte, name string) []byte {
	field := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	contents := []byte{1, 0, 0x20} // config_id, KEM x25519
	contents = append(contents, field(public)...)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 32) // HKDF-SHA256 with AES-128-GCM, maximum_name_length
	contents = append(append(contents, byte(len(name))), name...)
	contents = append(contents, 0, 0) // no extensions
	return append([]byte{0xfe, 0x0d}, field(contents)...)
}

// The address of --https serves both: HTTP with the server's certificate, and hosts that
// are passed through, each by its name.
func TestHTTPSAndTLSAtOneAddress(t *testing.T) {
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	ours := writeCertificate(t, certificate, key)
	secure := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := &byName{embedded(t, "--https", secure, "--certificate", certificate, "--certificate-key", key), secure}
	service, theirs := secureService(t, &tls.Config{}, echoName)
	m := w.publishTLS(service, map[string]any{"public_host": "shop"})
	if want := "https://shop." + baseDomain + ":" + strings.Split(secure, ":")[1] + "/"; m.URL != want {
		t.Errorf("public_url is %s, want %s", m.URL, want)
	}
	site := w.publish(web(t, func(rw http.ResponseWriter, in *http.Request) { fmt.Fprint(rw, "site") }), map[string]any{"public_host": "site"})
	w.answersAs(&tls.Config{RootCAs: theirs, ServerName: "shop." + baseDomain}, "shop."+baseDomain+"/:hello")
	client := secureVisitors(t, secure, ours, true)
	get := func(url string) (int, string, error) {
		res, err := client.Get(url)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	programs.Eventually(t, limit, func() error {
		status, body, err := get(site.URL)
		if err == nil && (status != http.StatusOK || body != "site") {
			err = fmt.Errorf("the site answers %d %s", status, body)
		}
		return err
	})
	if status, _, err := get("https://nobody." + baseDomain + "/"); status != http.StatusNotFound {
		t.Errorf("a host that nobody has answers %d, %v", status, err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := say(secure, &tls.Config{RootCAs: ours, ServerName: "shop." + baseDomain}, "x"); !errors.As(err, &unknown) {
		t.Errorf("the host that is passed through shows another certificate than the service's: %v", err)
	}
	// Who came in by the name of a site does not reach the other host, and HTTP is refused there.
	conn, err := tls.Dial("tcp", secure, &tls.Config{RootCAs: ours, ServerName: "site." + baseDomain})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.%s\r\nConnection: close\r\n\r\n", baseDomain)
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
		t.Errorf("under another name it answers %.100q, %v", answer, err)
	}
}

// A service of a tls mapping is told the visitor's address, before the hello, and a proxy
// in front that was named may say who that is.
func TestProxyProtocolByName(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := &byName{embedded(t, "--tls", address, "--proxy-protocol-from", "127.0.0.2"), address}
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "service.pem"), filepath.Join(folder, "service.key")
	roots := writeCertificate(t, certificate, key)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	service := programs.Listen(t, func(c *net.TCPConn) {
		defer c.Close()
		told := proxyproto.NewConn(c)
		from := told.RemoteAddr().String()
		secure := tls.Server(told, &tls.Config{Certificates: []tls.Certificate{pair}})
		_ = secure.SetDeadline(time.Now().Add(limit))
		fmt.Fprintf(secure, "from %s", from)
		_ = secure.CloseWrite()
		_, _ = io.Copy(io.Discard, secure)
	}).Port
	w.publishTLS(service, map[string]any{"public_host": "shop", "proxy_protocol": "v2"})
	visitor := &tls.Config{RootCAs: roots, ServerName: "shop." + baseDomain}
	for from, says := range map[string]string{"127.0.0.1": "", "127.0.0.2": "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"} {
		programs.Eventually(t, limit, func() error {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: limit}).Dial("tcp", address)
			if err != nil {
				return err
			}
			defer conn.Close()
			want := "from " + conn.LocalAddr().String()
			if says != "" {
				want = "from 203.0.113.7:4711"
			}
			if _, err := io.WriteString(conn, says); err != nil {
				return err
			}
			if got, err := sayOver(conn, visitor, "x"); err != nil || got != want {
				return fmt.Errorf("the service was told %q, %w, want %q", got, err, want)
			}
			return nil
		})
	}
}

// What cannot be had is refused when the mapping is made: without a forwarder that
// passes TLS, and where a host has other mappings.
func TestRefusedTLS(t *testing.T) {
	w := embedded(t)
	w.api.Refused(t, http.StatusConflict, "public_unavailable", http.MethodPost, "/api/v1/mappings", w.wanted(1, map[string]any{"protocol": "tls"}))
	s := &byName{embedded(t, "--tls", "127.0.0.1:0"), ""}
	s.publishTLS(1, map[string]any{"public_host": "shop"})
	for name, more := range map[string]map[string]any{"a path beside it": {"public_host": "shop", "public_path": "/a"}, "another tls mapping": {"public_host": "shop", "protocol": "tls"}} {
		s.api.RefusedAs(t, name, http.StatusConflict, "host_taken", http.MethodPost, "/api/v1/mappings", s.wanted(1, more))
	}
	s.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPost, "/api/v1/mappings", s.wanted(1, map[string]any{"protocol": "tls", "public_path": "/a"}))
}

// Visitors who say nothing, or invent names, keep nobody else waiting.
func TestManyStrangersByName(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := &byName{embedded(t, "--tls", address), address}
	service, roots := secureService(t, &tls.Config{}, echoName)
	w.publishTLS(service, map[string]any{"public_host": "shop"})
	visitor := &tls.Config{RootCAs: roots, ServerName: "shop." + baseDomain}
	w.answersAs(visitor, "shop."+baseDomain+"/:hello")
	for range 1000 {
		conn, err := net.DialTimeout("tcp", address, limit)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	refused := 0
	for i := range 500 {
		if _, err := say(address, &tls.Config{ServerName: fmt.Sprintf("n-%d.%s", i, baseDomain)}, "x"); err != nil && strings.Contains(err.Error(), "remote error") {
			refused++
		}
	}
	if refused != 500 {
		t.Errorf("of 500 names that nobody has %d were told so", refused)
	}
	got, err := say(address, visitor, "hello")
	if err != nil || got != "shop."+baseDomain+"/:hello" {
		t.Errorf("a known host answers %q, %v", got, err)
	}
}
