package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

// stranger calls a server over a TLS of the test's making.
func stranger(t *testing.T, address string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	config.InsecureSkipVerify, config.MinVersion = true, tls.VersionTLS13
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return conn
}

// Every method of the service, and some that there are not.
func everyCall(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	got := map[string]error{}
	desc := controlpb.State_ServiceDesc
	names := []string{"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y"}
	for _, m := range desc.Methods {
		names = append(names, "/"+desc.ServiceName+"/"+m.MethodName)
	}
	for _, m := range desc.Streams {
		names = append(names, "/"+desc.ServiceName+"/"+m.StreamName)
	}
	for _, name := range names {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		// A stream carries calls of every kind.
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
		if err == nil {
			_ = stream.SendMsg(&controlpb.PingRequest{})
			_ = stream.CloseSend()
			err = stream.RecvMsg(&controlpb.PingAnswer{})
		}
		cancel()
		got[name] = err
	}
	return got
}

func TestNothingAnswersWithoutANodeCertificate(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	ctx := t.Context()

	// Plain TCP: HTTP, garbage, and nothing.
	for _, say := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x01\x02\x03garbage"} {
		conn, err := net.Dial("tcp", s.address)
		must(t, err)
		_, err = io.WriteString(conn, say)
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		answer, _ := io.ReadAll(conn)
		if len(answer) > 7 || (len(answer) > 0 && answer[0] != 21) { // a TLS alert at most
			t.Errorf("%q was answered %q", say, answer)
		}
		must(t, conn.Close())
	}

	// TLS without a certificate: enrolment is there, nothing else is.
	conn := stranger(t, s.address, &tls.Config{})
	for name, err := range everyCall(ctx, conn) {
		if c := status.Code(err); c != codes.Unimplemented && c != codes.Unauthenticated {
			t.Errorf("without a certificate %s answered %v", name, err)
		}
	}
	_, err := controlpb.NewEnrollmentClient(conn).Enroll(ctx, &controlpb.EnrollRequest{Secret: make([]byte, 32), Node: "node-001"})
	if _, err = received(err); domain.CodeOf(err) != codeJoinRefused {
		t.Errorf("a wrong join token: %v", err)
	}
	_, err = controlpb.NewEnrollmentClient(conn).Enroll(ctx, &controlpb.EnrollRequest{Request: make([]byte, 1<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a stranger's large message: %v", err)
	}

	// Certificates that are not a node's of this cluster.
	other, err := OpenAuthority(ctx, NewFileVault(t.TempDir()), AuthorityOptions{})
	must(t, err)
	foreign, err := other.IssueNode("node-001")
	must(t, err)
	agents, err := p.authority.IssueAgents("127.0.0.1")
	must(t, err)
	state, err := p.authority.IssueState()
	must(t, err)
	ended := &Authority{cert: p.authority.cert, key: p.authority.key, life: time.Hour, skew: time.Minute, metrics: NewServerMetrics(),
		now: func() time.Time { return time.Now().Add(-2 * time.Hour) }}
	expired, err := ended.IssueNode("node-001")
	must(t, err)
	later := &Authority{cert: p.authority.cert, key: p.authority.key, life: time.Hour, skew: time.Minute, metrics: NewServerMetrics(),
		now: func() time.Time { return time.Now().Add(2 * time.Hour) }}
	early, err := later.IssueNode("node-001")
	must(t, err)
	for name, cert := range map[string]tls.Certificate{
		"of another authority":       foreign.Certificate,
		"an agents' one":             agents.Certificate,
		"the State service's":        state.Certificate,
		"expired":                    expired.Certificate,
		"not yet valid":              early.Certificate,
		"an agent's credential":      agentCredential(t, nil),
		"an agent's that says node":  agentCredential(t, nodeURI("node-001")),
		"a node's URI and one more":  p.spoilt(func(c *x509.Certificate) { c.URIs = append(c.URIs, stateURI()) }),
		"a node's URI with a query":  p.spoilt(func(c *x509.Certificate) { c.URIs[0].RawQuery = "x=1" }),
		"a node's URI, another host": p.spoilt(func(c *x509.Certificate) { c.URIs[0].Host = "control" }),
		"without URI":                p.spoilt(func(c *x509.Certificate) { c.URIs = nil }),
		"for servers only":           p.spoilt(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }),
	} {
		conn := stranger(t, s.address, &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cert, nil // whatever the server says it accepts
		}})
		for method, err := range everyCall(ctx, conn) {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %s answered %v", name, method, err)
			}
		}
		_, err := controlpb.NewEnrollmentClient(conn).Enroll(ctx, &controlpb.EnrollRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: Enroll answered %v", name, err)
		}
	}

	// And a node's does work, for all of it but enrolment.
	node, err := p.authority.IssueNode("node-001")
	must(t, err)
	conn = stranger(t, s.address, &tls.Config{Certificates: []tls.Certificate{node.Certificate}})
	if _, err := controlpb.NewStateClient(conn).Ping(ctx, &controlpb.PingRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := controlpb.NewEnrollmentClient(conn).Enroll(ctx, &controlpb.EnrollRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("Enroll answered a node: %v", err)
	}
}

// spoilt is a node's certificate with a mistake.
func (p *plane) spoilt(change func(*x509.Certificate)) tls.Certificate {
	p.t.Helper()
	_, key, err := newRequest(nil)
	must(p.t, err)
	leaf, err := p.authority.sign(key.Public(), forNode, func(c *x509.Certificate) {
		c.URIs = []*url.URL{nodeURI("node-001")}
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		change(c)
	})
	must(p.t, err)
	return p.authority.issued(leaf, key).Certificate
}

// agentCredential is a certificate that an agent can make of what it has.
func agentCredential(t *testing.T, uri *url.URL) tls.Certificate {
	t.Helper()
	c, err := wire.NewCredential()
	must(t, err)
	if !c.Valid() {
		t.Fatal("no credential")
	}
	public, key, err := ed25519.GenerateKey(rand.Reader) // what a credential is
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestNodeVerifiesTheControlPlane(t *testing.T) {
	p := newPlane(t)
	other := newPlane(t)
	for name, cert := range map[string]func() (Issued, error){
		"of another cluster": other.authority.IssueState,
		"a node":             func() (Issued, error) { return p.authority.IssueNode("node-002") },
		"agents' one":        func() (Issued, error) { return p.authority.IssueAgents("127.0.0.1", "control") },
	} {
		i, err := cert()
		must(t, err)
		s := p.serve("")
		s.mu.Lock()
		s.own = &i
		s.mu.Unlock()
		client := p.dial([]string{s.address}, func(c *Config) { c.Retries = -1 })
		if _, err := client.Ping(t.Context()); !isUnavailable(err) || !strings.Contains(err.Error(), "authentication handshake failed") {
			t.Errorf("%s passed for the State service: %v", name, err)
		}
		enroller := p.enroller(s.address)
		if _, err := enroller.Issue(t.Context(), nil); !isUnavailable(err) {
			t.Errorf("%s was sent a join token: %v", name, err)
		}
	}
}

func (p *plane) enroller(addresses ...string) *Enroller {
	return &Enroller{Node: "node-001", Addresses: addresses, Now: p.clock.Now, Timeout: 10 * time.Second,
		Token: func() (JoinToken, error) { return p.tokens.Current(context.Background()) }}
}

func TestNodeEnrolsRenewsAndComesBack(t *testing.T) {
	p := newPlane(t)
	admitted := map[string]error{}
	s := p.serve("", func(c *ServerConfig) {
		c.Admit = func(_ context.Context, node, source string) error {
			if !strings.HasPrefix(source, "127.0.0.1:") {
				t.Errorf("asked for a node at %q", source)
			}
			return admitted[node]
		}
	})
	ctx := t.Context()
	enroller := p.enroller(s.address)
	first, err := enroller.Issue(ctx, nil)
	must(t, err)
	client := p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(first) })
	must(t, second(client.Ping(ctx)))

	// While the certificate is good no join token is needed.
	enroller.Token = nil
	next, err := enroller.Issue(ctx, &first)
	must(t, err)
	if next.Certificate.Leaf.SerialNumber.Cmp(first.Certificate.Leaf.SerialNumber) == 0 {
		t.Error("renewing gave the same certificate")
	}
	must(t, second(p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(next) }).Ping(ctx)))
	if _, err := enroller.Issue(ctx, nil); err == nil {
		t.Error("enrolled without a join token")
	}

	// A node whose certificate has ended is a new one. The connection it has ends too.
	p.clock.advance(25 * time.Hour)
	if _, err := client.Ping(ctx); !isUnavailable(err) {
		t.Errorf("an expired certificate on an old connection: %v", err)
	}
	if _, err := enroller.Issue(ctx, &next); err == nil {
		t.Error("an expired certificate was renewed")
	}
	enroller.Token = p.enroller().Token
	again, err := enroller.Issue(ctx, &next)
	must(t, err)
	must(t, second(p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(again) }).Ping(ctx)))

	// Agents' certificates.
	client = p.dial([]string{s.address}, func(c *Config) { c.Trust = fixed(again) })
	agents, err := client.Certify(ctx, "edge.example.org", "10.1.2.3")
	must(t, err)
	if leaf := agents.Certificate.Leaf; leaf.VerifyHostname("10.1.2.3") != nil || leaf.VerifyHostname("edge.example.org") != nil {
		t.Errorf("certified for %v %v", leaf.DNSNames, leaf.IPAddresses)
	}
	if _, err := client.Certify(ctx); domain.CodeOf(err) != domain.CodeInvalid {
		t.Errorf("a certificate for no name: %v", err)
	}

	// Who is not let in any more gets nothing, by neither door.
	admitted["node-001"] = errors.New("removed")
	for name, get := range map[string]func() (Issued, error){
		"renew":   func() (Issued, error) { return enroller.Issue(ctx, &again) },
		"enrol":   func() (Issued, error) { return enroller.Issue(ctx, nil) },
		"certify": func() (Issued, error) { return client.Certify(ctx, "x.example") },
	} {
		if _, err := get(); domain.CodeOf(err) != codeJoinRefused || strings.Contains(err.Error(), "removed") {
			t.Errorf("%s after removal: %v", name, err)
		}
	}
	// A wrong token, and one of another cluster.
	delete(admitted, "node-001")
	wrong, err := p.tokens.Current(ctx)
	must(t, err)
	wrong.secret[0] ^= 1
	enroller.Token = func() (JoinToken, error) { return wrong, nil }
	if _, err := enroller.Issue(ctx, nil); domain.CodeOf(err) != codeJoinRefused {
		t.Errorf("a wrong secret: %v", err)
	}
	wrong.secret[0] ^= 1
	wrong.pin[0] ^= 1
	if _, err := enroller.Issue(ctx, nil); !isUnavailable(err) {
		t.Errorf("the right secret was sent to who is not pinned: %v", err)
	}
}

func TestStrangersAreBounded(t *testing.T) {
	p := newPlane(t)
	metrics := NewServerMetrics()
	s := p.serve("", func(c *ServerConfig) { c.MaxStrangers, c.Metrics, c.Handshake = 4, metrics, time.Minute })
	var conns []net.Conn
	for range 12 {
		conn, err := net.Dial("tcp", s.address)
		must(t, err)
		defer conn.Close()
		conns = append(conns, conn)
	}
	// The oldest make room for the newest.
	for i, conn := range conns[:8] {
		must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	// With a crowd at the door a node still comes in.
	for range 8 {
		conn, err := net.Dial("tcp", s.address)
		must(t, err)
		defer conn.Close()
	}
	must(t, second(p.dial([]string{s.address}).Ping(t.Context())))
	if s.door.count() > 4 {
		t.Errorf("%d strangers", s.door.count())
	}
	// Nobody stays without proving a node, whether silent from the beginning or
	// after a handshake without a certificate.
	s = p.serve("", func(c *ServerConfig) { c.Handshake = 300 * time.Millisecond })
	silent, err := net.Dial("tcp", s.address)
	must(t, err)
	defer silent.Close()
	must(t, silent.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.Copy(io.Discard, silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent stranger stays: %v", err)
	}
	conn, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn, MinVersion: tls.VersionTLS13})
	must(t, err)
	defer conn.Close()
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent stranger stays: %v", err)
	}
	eventually(t, "strangers leave the count", func() bool { return s.door.count() == 0 })
}

func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.line.Len()
}

func TestServiceRenewsItsOwnCertificate(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	first, err := s.certificate()
	must(t, err)
	p.clock.advance(15 * time.Hour)
	if same, err := s.certificate(); err != nil || same.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) != 0 {
		t.Errorf("another one after 15 of 24 hours, %v", err)
	}
	p.clock.advance(2 * time.Hour)
	if next, err := s.certificate(); err != nil || next.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Errorf("the same one after 17 of 24 hours, %v", err)
	}
	p.clock.advance(100 * time.Hour)
	must(t, second(p.dial([]string{s.address}).Ping(t.Context())))
}
