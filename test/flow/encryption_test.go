package flow

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/programs"
)

// keyed starts an agent with a key that is there before its first start.
func (p *pair) keyed(t *testing.T, c programs.Client, state string, args ...string) *programs.Process {
	t.Helper()
	return p.server.Join(t, p.API, c, append([]string{"--state", state}, args...)...)
}

// keyIn makes the key of a client's agent.
func keyIn(t *testing.T, state string, c programs.Client) seal.PublicKey {
	t.Helper()
	key, err := seal.LoadOrCreateKey(filepath.Join(state, fmt.Sprintf("agent-%d.key", c.ID)))
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

// Two agents whose owners have told each other's keys carry a mapping with encryption
// e2e; with another key, or without one, no byte goes.
func TestEncryptionFromEndToEnd(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		p := &pair{API: s.API, server: s, user: s.API.CreateUser(t, "ann")}
		p.source, p.target = s.API.CreateClient(t, p.user.ID, "source"), s.API.CreateClient(t, p.user.ID, "target")
		here, there := t.TempDir(), t.TempDir()
		sourceKey, targetKey := keyIn(t, here, p.source), keyIn(t, there, p.target)

		p.targetAgent = p.keyed(t, p.target, there, "--peer-key", fmt.Sprintf("%d=%v", p.source.ID, sourceKey))
		p.sourceAgent = p.keyed(t, p.source, here, "--peer-key", fmt.Sprintf("%d=%v", p.target.ID, targetKey))
		programs.Start(t, "tunnox", nil, "agent", "key", "--state", here, "--client-id", fmt.Sprint(p.source.ID)).
			Says("^"+sourceKey.String()+"\n$", 10*time.Second)
		service := programs.Listen(t, answering("service")).Port
		var m struct {
			ID         int64  `json:"mapping_id"`
			Encryption string `json:"encryption"`
		}
		local := programs.FreePort(t)
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "tcp", "local_port": local, "target_host": "127.0.0.1", "target_port": service, "encryption": "e2e"}, &m)
		if m.Encryption != "e2e" {
			t.Errorf("the API shows %q", m.Encryption)
		}
		waitAnswer(t, local, "service:hello")
		live := programs.Dial(t, local)
		expect(t, live, "service:")
		p.API.Do(t, http.MethodPost, path("/mappings/%d/disable", m.ID), nil, nil)
		ended(t, live)
		p.API.Do(t, http.MethodPost, path("/mappings/%d/enable", m.ID), nil, nil)
		waitAnswer(t, local, "service:again")

		// The target agent's key is another one than its peer was told.
		if err := p.sourceAgent.Stop(); err != nil {
			t.Error(err)
		}
		other, err := seal.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		p.sourceAgent = p.keyed(t, p.source, here, "--peer-key", fmt.Sprintf("%d=%v", p.target.ID, other.Public()))
		programs.Eventually(t, 20*time.Second, func() error { return refusedWith(p.sourceAgent, local, "encryption_failed") })
		// It was told none, and takes the one that the server's log is proven to have.
		if err := p.sourceAgent.Stop(); err != nil {
			t.Error(err)
		}
		p.sourceAgent = p.keyed(t, p.source, here)
		waitAnswer(t, local, "service:proven")
		// Its owner wants no key but those that were told.
		if err := p.sourceAgent.Stop(); err != nil {
			t.Error(err)
		}
		p.sourceAgent = p.keyed(t, p.source, here, "--peer-key-only", "--peer-key", fmt.Sprintf("5=%v", other.Public()))
		if said, err := tunnox(t, "agent", "verify", "--state", here); err != nil || !strings.Contains(said, "client 5\n") || strings.Contains(said, fmt.Sprintf("client %d\n", p.target.ID)) {
			t.Errorf("the agent knows %s, %v", said, err)
		}
		programs.Eventually(t, 20*time.Second, func() error { return refusedWith(p.sourceAgent, local, "key_refused") })
	})
}

// refusedWith asks for a connection, which must be reset for a reason that the agent's log has.
func refusedWith(agent *programs.Process, port int, reason string) error {
	c, err := programs.DialPort(port)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
		return fmt.Errorf("the connection gave %d bytes, %v", n, err)
	}
	if log := agent.Said(64 << 10); !strings.Contains(log, reason) {
		return fmt.Errorf("the log has no %s: %s", reason, log)
	}
	return nil
}
