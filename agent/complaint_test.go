package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// logged collects what an agent logs.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Whoever connects sees a reset; the log says why, once, not for each connection.
func TestRefusalsAreToldOnce(t *testing.T) {
	var log logged
	s := newScript(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	address := free(t)
	s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1001, address)}})
	for range 3 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := s.link.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wire.ReadOpen(stream); err != nil {
			t.Fatal(err)
		}
		if err := wire.WriteOpened(stream, wire.Refuse(wire.DialRefused)); err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(pace.Guard))
		if _, err := io.ReadAll(conn); err == nil {
			t.Error("the connection ended well")
		}
		conn.Close()
	}
	for range 3 {
		stream, err := s.link.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.WriteOpen(stream, &wirepb.Open{MappingId: 1002, Service: "192.0.2.1:80"}); err != nil {
			t.Fatal(err)
		}
		if err := wire.ReadOpened(stream); !errors.Is(err, wire.PolicyDenied) {
			t.Fatalf("got the error %v, want %v", err, wire.PolicyDenied)
		}
		stream.Close()
	}
	for _, once := range []string{`level=WARN msg="connection refused" client=600000001 node=n session=s mapping=1001`,
		`level=WARN msg="service not reached" client=600000001 node=n session=s mapping=1002`, "--allow 192.0.2.1:80"} {
		if n := strings.Count(log.String(), once); n != 1 {
			t.Errorf("%d times %q in\n%s", n, once, log.String())
		}
	}
}

// A server that is not who it should be is tried on, and told of once a minute.
func TestServersThatDoNotVerifyAreToldOnceAMinute(t *testing.T) {
	for name, fault := range map[string]error{
		"pin":       transport.ErrPin,
		"authority": &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"name":      x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log logged
			tries := 0
			a, err := New(Config{Servers: []string{"x:1"}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Dial: func(context.Context, string) (transport.Session, error) {
					tries++
					return nil, fmt.Errorf("tls handshake: %w", fault)
				}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*complaintEvery)
			defer cancel()
			if err := a.Run(ctx); err != nil {
				t.Errorf("%s: ended with %v", name, err)
			}
			told := strings.Count(log.String(), "level=WARN")
			if told < 3 || told > 5 || tries < 10 || strings.Count(log.String(), "--pin, --ca") != told {
				t.Errorf("%s: %d tries, told %d times:\n%s", name, tries, told, log.String())
			}
		})
	}
}

func TestComplaintsComeAgainAndAreBounded(t *testing.T) {
	var cs complaints
	now := time.Now()
	c := complaint{"connection refused", 1001, wire.TargetOffline}
	for _, step := range []struct {
		after time.Duration
		due   bool
	}{{0, true}, {time.Second, false}, {complaintEvery - 1, false}, {complaintEvery, true}, {complaintEvery + 1, false}} {
		if due := cs.due(c, now.Add(step.after)); due != step.due {
			t.Errorf("after %v: due is %v", step.after, due)
		}
	}
	other := c
	other.mapping++
	if !cs.due(other, now) {
		t.Error("another mapping is not told")
	}
	for i := range int64(5 * maxComplaints) {
		cs.due(complaint{"x", i, wire.TargetOffline}, now)
	}
	if len(cs.last) > maxComplaints {
		t.Errorf("%d are remembered", len(cs.last))
	}
}
