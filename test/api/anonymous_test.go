package api

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// registerAnonymous starts agents without an identity and keeps their claim codes. It
// does this before a story moves the agents of the only node away.
func (f *form) registerAnonymous(t *testing.T, n int) {
	t.Helper()
	f.codes = make(chan string, n)
	var states []string
	for range n {
		states = append(states, t.TempDir())
		f.server.Agent(t, nil, "--state", states[len(states)-1])
	}
	program := filepath.Join(programs.Build(t), "tunnox")
	for _, state := range states {
		programs.Eventually(t, 15*time.Second, func() error {
			code, err := exec.CommandContext(t.Context(), program, "agent", "claim-code", "--state", state).Output()
			if err == nil {
				f.codes <- strings.TrimSpace(string(code))
			}
			return err // until the agent has registered there is nothing to claim
		})
	}
}

// claimCode gives an unused code.
func (f *form) claimCode(t *testing.T) string {
	t.Helper()
	select {
	case code := <-f.codes:
		return code
	default:
		t.Fatal("no anonymous client is left; register more")
		return ""
	}
}
