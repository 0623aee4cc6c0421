package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/transport"
)

// TestResetsAndSlowReaders: a reset of one end is a reset at the other, and connections
// that are not read use bounded memory at both forwarders.
func TestResetsAndSlowReaders(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	seen := make(chan error, 1)
	port := e.mapping(t, programs.Listen(t, func(conn *net.TCPConn) {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(conn, kind); err != nil {
			return
		}
		if _, err := conn.Write(kind); err != nil {
			return
		}
		switch kind[0] {
		case 'r':
			_, _ = conn.Read(kind) // the answer has been read when this comes
			_ = conn.SetLinger(0)
		case 'w':
			_, err := io.Copy(io.Discard, conn)
			seen <- err
		case 'f':
			flood := make([]byte, 64<<10)
			for {
				if _, err := conn.Write(flood); err != nil {
					return
				}
			}
		default:
			programs.Echo(conn)
		}
	}).Port)
	ask := func(kind string) *net.TCPConn {
		conn := programs.Dial(t, port)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, kind); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := ask("r")
	_, _ = io.WriteString(conn, "now")
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a reset of the service is %v", err)
	}
	conn = ask("w")
	_ = conn.SetLinger(0)
	_ = conn.Close()
	select {
	case err := <-seen:
		if err == nil {
			t.Error("a reset of the client is an end for the service")
		}
	case <-time.After(10 * time.Second):
		t.Error("the service does not hear of a reset")
	}

	memory := func(f *programs.Server) int64 {
		kb, err := f.Status("status", "VmRSS")
		if err != nil {
			t.Fatal(err)
		}
		return kb
	}
	before := [2]int64{memory(c.Forwarders[0]), memory(c.Forwarders[1])}
	var slow []*net.TCPConn
	for range 20 {
		slow = append(slow, ask("f")) // and never reads
	}
	for range 200 {
		if err := echoes(port); err != nil {
			t.Fatalf("beside readers that do not read: %v", err)
		}
	}
	for i, f := range c.Forwarders {
		grown := memory(f) - before[i]
		t.Logf("forwarder %d grew by %d KiB with %d slow readers", i+1, grown, len(slow))
		if !pace.Race && grown > 64<<10 {
			t.Errorf("forwarder %d grew by %d KiB", i+1, grown)
		}
	}
	for _, conn := range slow {
		_ = conn.Close()
	}
}

// TestNodesGoAndComeBack: without the control plane connections can still be made. When
// its forwarder is killed, a target is found again wherever it connects.
func TestNodesGoAndComeBack(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	port := e.mapping(t, programs.Listen(t, programs.Echo).Port)

	c.Control.Kill()
	if err := echoes(port); err != nil {
		t.Errorf("without the control plane: %v", err)
	}
	c.Control.Restart(t)

	for range 2 {
		c.Forwarders[1].Kill() // the target's agent connects to the other one, or waits
		c.Forwarders[1].Restart(t)
		works(t, port)
	}
	// Both ends are at the first node now, and later at different nodes again.
	newer := c.Forwarders[0].Join(t, e.API, e.target)
	e.targetAgent.Says(`this agent connects again later`, 30*time.Second)
	works(t, port)
	c.Forwarders[1].Join(t, e.API, e.target)
	newer.Says(`this agent connects again later`, 30*time.Second)
	works(t, port)
}

// TestRedisFlushed: forwarders keep their knowledge of each other in Redis, and its
// loss prevents no connection.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	url := services.Redis(t)
	c := programs.StartCluster(t, 2, services.Postgres(t), url)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	port := e.mapping(t, programs.Listen(t, programs.Echo).Port)
	options, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	redis := goredis.NewClient(options)
	defer redis.Close()
	if err := redis.FlushDB(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := echoes(port); err != nil {
			t.Fatalf("after a flush: %v", err)
		}
	}
	e.WaitOnline(t, e.target.ID)
}

// TestOnlyNodesAreAnswered: a peer without a certificate of the cluster gets no answer
// from the ports between nodes.
func TestOnlyNodesAreAnswered(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	other, err := control.OpenAuthority(t.Context(), control.NewFileVault(t.TempDir()), control.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.IssueNode("node-001")
	if err != nil {
		t.Fatal(err)
	}
	heard := func(address string, config *tls.Config) int {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(3 * time.Second))
		conn := raw
		if config != nil {
			secure := tls.Client(raw, config)
			if secure.Handshake() != nil {
				return 0
			}
			conn = secure
		}
		// The beginning of HTTP/2, and an empty SETTINGS frame.
		_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		answer := make([]byte, 1024)
		n, _ := conn.Read(answer)
		return n
	}
	f := c.Forwarders[0]
	anyone := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	stranger := anyone.Clone()
	stranger.Certificates = []tls.Certificate{foreign.Certificate}
	for what, config := range map[string]*tls.Config{"plain TCP": nil, "TLS without a certificate": anyone, "a certificate of another authority": stranger} {
		if n := heard(f.Bridge, config); n != 0 {
			t.Errorf("%s heard %d bytes from the bridge", what, n)
		}
		if config != anyone { // it may enrol; package control's tests check that it can do nothing else
			if n := heard(c.Control.State, config); n != 0 {
				t.Errorf("%s heard %d bytes from the State service", what, n)
			}
		}
	}
	// A peer that comes as an agent, with the pin of the cluster's authority, gets no
	// answer either: the ports between nodes do not serve agents.
	pin, err := transport.ParsePin(f.Pin)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{f.Bridge, c.Control.State} {
		session, err := transport.DialTLS(t.Context(), address, transport.DialConfig{Pins: []transport.Pin{pin}})
		if err == nil {
			t.Errorf("an agent has a session with %s", address)
			_ = session.Close()
		}
	}
	// A join token of another cluster is refused.
	wrong := filepath.Join(t.TempDir(), "token")
	tokens, err := control.OpenJoinTokens(t.Context(), control.NewFileVault(t.TempDir()), other)
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Save(wrong); err != nil {
		t.Fatal(err)
	}
	p := programs.Start(t, "tunnoxd", nil, "forwarder", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0",
		"--metrics", "127.0.0.1:0", "--redis", f.Args()[1], "--control", c.Control.State, "--join-token-file", wrong)
	p.Says("certificate", 15*time.Second)
	p.Abandon()
}

// TestServeIsJoined: the one-process form over Postgres and Redis is a node like
// others.
func TestServeIsJoined(t *testing.T) {
	t.Parallel()
	redis := services.Redis(t)
	s := programs.Serve(t, "--postgres", services.Postgres(t), "--redis", redis, "--state", "127.0.0.1:0")
	f := programs.StartServerAt(t, "127.0.0.11", "forwarder", "--redis", redis, "--control", s.State,
		"--join-token-file", filepath.Join(s.Dir, "join-token"))
	service := programs.Listen(t, programs.Echo).Port
	e := join(t, s.API, s, f)
	e.mapping(t, service)
	e.source, e.target = e.target, e.source
	e.mapping(t, service) // the other way round
	if info, err := os.Stat(filepath.Join(s.Dir, "join-token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("join token: %v, %v", info, err)
	}
}

// TestFilesInsteadOfEnrolment: certificates may come from files of the operator.
func TestFilesInsteadOfEnrolment(t *testing.T) {
	t.Parallel()
	postgres, redis := services.Postgres(t), services.Redis(t)
	authority, err := control.OpenAuthority(t.Context(), control.NewFileVault(t.TempDir()), control.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := programs.StartServer(t, "control", "--postgres", postgres, "--redis", redis)
	// The file names both: who signs for nodes, and who signs for the rows in Redis.
	ca := pemFile(t, "CERTIFICATE", authority.Certificate().Raw)
	own, err := os.ReadFile(filepath.Join(c.Dir, "cluster-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := appendTo(ca, own); err != nil {
		t.Fatal(err)
	}
	var nodes []*programs.Server
	for _, node := range []string{"node-001", "node-002"} {
		issued, err := authority.IssueNode(node)
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(issued.Certificate.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, programs.StartServer(t, "forwarder", "--redis", redis, "--cluster-ca", ca,
			"--node-cert", pemFile(t, "CERTIFICATE", issued.Certificate.Leaf.Raw), "--node-key", pemFile(t, "PRIVATE KEY", key)))
	}
	e := join(t, c.API, nodes[0], nodes[1])
	e.mapping(t, programs.Listen(t, programs.Echo).Port)

	// A certificate for another node is reported, with the name that it should have.
	p := programs.Start(t, "tunnoxd", nil, append([]string{"forwarder", "--data", t.TempDir(), "--listen", "127.0.0.1:0",
		"--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, nodes[0].Args()...)...)
	p.Says(bridge.IdentityURI("node-003").String(), 15*time.Second)
	p.Fails(10 * time.Second)
}

// appendTo adds text to the end of a file.
func appendTo(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func pemFile(t *testing.T, kind string, der []byte) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.pem")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
