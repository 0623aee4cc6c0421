package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/transport"
)

// thief is somebody with files of a forwarder's machine, as a client of the State
// service.
func thief(t *testing.T, c *programs.Cluster, node, tokenFile string) *control.Enroller {
	t.Helper()
	return &control.Enroller{Node: node, Names: []string{"evil.example.org"}, Addresses: []string{c.Control.State},
		Token: func() (control.JoinToken, error) { return control.LoadJoinToken(tokenFile) }}
}

func codeOf(err error) domain.Code { return domain.CodeOf(err) }

// TestTheJoinTokenIsNotANode: who took the join token becomes no node that is there, and
// agents are shown no certificate for names of other nodes.
func TestTheJoinTokenIsNotANode(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	token := filepath.Join(c.Control.Dir, "join-token")
	for _, node := range []string{"node-001", "node-002"} {
		if _, err := thief(t, c, node, token).Issue(t.Context(), nil); codeOf(err) != domain.CodeNodeTaken {
			t.Errorf("enrolled as %s: %v", node, err)
		}
	}
	issued, err := thief(t, c, "node-077", token).Issue(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := dialAs(t, c, issued)
	if _, err := client.Certify(t.Context(), "evil.example.org"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"127.0.0.11", "localhost", "fra1.example.org"} {
		if _, err := client.Certify(t.Context(), name); codeOf(err) != domain.CodeNodeName {
			t.Errorf("certified for %s: %v", name, err)
		}
	}
}

func trustOf(issued control.Issued) control.Trust {
	return control.Trust{
		Certificate: func() (*tls.Certificate, error) { return &issued.Certificate, nil },
		Roots: func() (*x509.CertPool, error) {
			pool := x509.NewCertPool()
			for _, a := range issued.Authorities {
				pool.AddCert(a)
			}
			return pool, nil
		},
	}
}

func dialAs(t *testing.T, c *programs.Cluster, issued control.Issued) *control.Client {
	t.Helper()
	client, err := control.Dial(control.Config{Addresses: []string{c.Control.State}, Trust: trustOf(issued), Metrics: control.NewClientMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// TestARevokedNodeIsOut: its certificate is refused within a second by the control plane
// and the other forwarder, its sessions end, its process ends, and its id is not used
// again.
func TestARevokedNodeIsOut(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	e.mapping(t, programs.Listen(t, programs.Echo).Port)
	var shown programs.Client
	e.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", e.target.ID), nil, &shown)
	node, victim := shown.NodeID, c.Forwarders[1]
	pem, err := os.ReadFile(filepath.Join(victim.Dir, "node.pem")) // what an attacker has
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := os.ReadFile(filepath.Join(c.Control.Dir, "cluster-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(roots)
	stolen := control.Trust{Certificate: func() (*tls.Certificate, error) { return &cert, nil }, Roots: func() (*x509.CertPool, error) { return authority, nil }}
	client, err := control.Dial(control.Config{Addresses: []string{c.Control.State}, Trust: stolen, Metrics: control.NewClientMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	crosses := func() (transport.Stream, error) {
		pool, err := bridge.NewPool(bridge.PoolConfig{Trust: bridge.Trust(stolen)})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		peer := bridge.Peer{Node: "node-001", Address: c.Forwarders[0].Bridge}
		if node == "node-001" {
			peer.Node = "node-002"
		}
		return pool.Open(ctx, peer)
	}
	if _, err := crosses(); err != nil {
		t.Fatalf("before the revocation: %v", err)
	}

	began := time.Now()
	e.Do(t, http.MethodPost, "/api/v1/nodes/"+node+"/revoke", nil, nil)
	soon := func(what string, done func() error) {
		t.Helper()
		programs.Eventually(t, 20*time.Second, done)
		took := time.Since(began)
		t.Logf("%s after %v", what, took.Round(time.Millisecond))
		if took > time.Duration(pace.Now()*float64(5*time.Second)) {
			t.Errorf("%s only after %v", what, took)
		}
	}
	soon("refused by the control plane", func() error {
		if _, err := client.Ping(t.Context()); codeOf(err) != domain.CodeNodeRevoked {
			return fmt.Errorf("it is answered %v", err)
		}
		return nil
	})
	soon("refused by the other forwarder", func() error {
		if _, err := crosses(); !errors.Is(err, bridge.ErrUnreachable) {
			return fmt.Errorf("it is answered %v", err)
		}
		return nil
	})
	soon("its sessions were gone", func() error {
		var now programs.Client
		e.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", e.target.ID), nil, &now)
		if now.NodeID == node {
			return fmt.Errorf("its client is %s at %s", now.Status, now.NodeID)
		}
		return nil
	})
	if answer, err := e.Call(http.MethodGet, "/api/v1/nodes/"+node, nil); err != nil || answer.Status != http.StatusNotFound {
		t.Errorf("the node is shown: %d, %v", answer.Status, err)
	}
	victim.Fails(40 * time.Second)
	if said := victim.Said(64 << 10); !strings.Contains(said, "revoked") {
		t.Errorf("the revoked process said %q", said)
	}
	token := filepath.Join(c.Control.Dir, "join-token")
	if _, err := thief(t, c, node, token).Issue(t.Context(), nil); codeOf(err) != domain.CodeNodeRevoked {
		t.Errorf("enrolled again under the id: %v", err)
	}
	// Started again by a supervisor it does not come back by itself.
	again := programs.Start(t, "tunnoxd", nil, append([]string{"forwarder", "--data", victim.Dir, "--listen", "127.0.0.1:0",
		"--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, victim.Args()...)...)
	again.Says("this node was revoked", 15*time.Second)
	again.Fails(10 * time.Second)
	if answer, err := e.Call(http.MethodPost, "/api/v1/nodes/control-1/revoke", nil); err != nil || answer.Status != http.StatusNotFound {
		t.Errorf("a control plane was revoked: %d, %v", answer.Status, err)
	}
}

// TestATokenForOneNode: a second node does not join with it, and one whose id another
// node has takes the next id.
func TestATokenForOneNode(t *testing.T) {
	t.Parallel()
	postgres, redis := services.Postgres(t), services.Redis(t)
	c := &programs.Cluster{Control: programs.StartServerAt(t, "127.0.0.10", "control", "--postgres", postgres, "--redis", redis)}
	once := filepath.Join(t.TempDir(), "once")
	made := programs.Start(t, "tunnoxd", nil, "node-token", "--postgres", postgres, "--data", c.Control.Dir, "--out", once)
	if err := made.Wait(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	args := []string{"--redis", redis, "--control", c.Control.State, "--join-token-file", once}
	first := programs.StartServerAt(t, "127.0.0.11", "forwarder", args...)
	second := programs.Start(t, "tunnoxd", nil, append([]string{"forwarder", "--data", t.TempDir(), "--listen", "127.0.0.1:0",
		"--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, args...)...)
	second.Says(`for one use`, 20*time.Second)
	second.Fails(10 * time.Second)

	// The first goes on without a token: its certificate is in its data directory.
	if err := os.Remove(once); err != nil {
		t.Fatal(err)
	}
	first.Kill()
	first.Restart(t)

	// A node that comes while the id it is offered is another's by its key is a new one.
	var revoked struct{ State string }
	c.Control.API.Do(t, http.MethodPost, "/api/v1/nodes/node-002/revoke", nil, &revoked)
	if revoked.State != "revoked" {
		t.Errorf("answered %+v", revoked)
	}
	options, err := goredis.ParseURL(redis)
	if err != nil {
		t.Fatal(err)
	}
	db := goredis.NewClient(options)
	defer db.Close()
	if err := db.FlushDB(t.Context()).Err(); err != nil { // the directory knows of no revocation now
		t.Fatal(err)
	}
	third := programs.StartServerAt(t, "127.0.0.12", "forwarder", "--redis", redis, "--control", c.Control.State, "--join-token-file", filepath.Join(c.Control.Dir, "join-token"))
	programs.Eventually(t, 20*time.Second, func() error {
		answer, err := c.Control.API.Call(http.MethodGet, "/api/v1/nodes", nil)
		if err == nil && (!strings.Contains(string(answer.Body), third.Bridge) || strings.Contains(string(answer.Body), `"node-002"`)) {
			err = fmt.Errorf("the nodes are %s", answer.Body)
		}
		return err
	})
}
