package flow

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// A server that takes connections and says nothing does not keep an agent from the next
// one of its list: it is there in about a second, where a dial may take 15.
func TestSilentServerIsPassedBy(t *testing.T) {
	s := programs.Serve(t)
	silent := func() string {
		address := programs.Listen(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
		return fmt.Sprintf("127.0.0.1:%d", address.Port)
	}
	user := s.API.CreateUser(t, "ann")
	for name, servers := range map[string]string{
		"one silent":  silent() + "," + s.Agents,
		"two silent":  silent() + "," + silent() + "," + s.Agents,
		"none silent": s.Agents + "," + silent(),
	} {
		t.Run(name, func(t *testing.T) {
			watch := pace.Measure(t)
			began := time.Now()
			client := s.API.CreateClient(t, user.ID, name)
			file := filepath.Join(t.TempDir(), "auth-code")
			if err := os.WriteFile(file, []byte(client.AuthCode), 0o600); err != nil {
				t.Fatal(err)
			}
			programs.Start(t, "tunnox", nil, "agent", "--server", servers, "--pin", s.Pin, "--sessions", "1", "--state", t.TempDir(),
				"--client-id", fmt.Sprint(client.ID), "--auth-code-file", file)
			s.API.WaitOnline(t, client.ID)
			if took, limit := time.Since(began), watch.Allow(5*time.Second); took > limit {
				t.Errorf("the agent is online after %v, want %v", took, limit)
			}
		})
	}
}
