package chaos

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestManyMappings: one client with all the mappings that a client may have. Its
// configuration is larger than a control message from the 2,600th on (names of 400
// bytes), and the acknowledgement of listeners that fail is one from the 14,000th on.
// The agent stays connected and serves what can be served, and the API says how many
// there may be.
func TestManyMappings(t *testing.T) {
	t.Parallel()
	const atOnce, most, back = 32, 20_000, 2 * time.Minute
	s := programs.Serve(t, "--rate-limit", "0")
	user := s.API.CreateUser(t, "ann")
	c := s.API.CreateClient(t, user.ID, "both ends")
	create := func(host string, port int, name string) (programs.Answer, error) {
		return s.API.Call(http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": user.ID, "protocol": "tcp", "name": name,
			"source_client_id": c.ID, "target_client_id": c.ID, "local_host": host, "local_port": port, "target_host": "127.0.0.1", "target_port": 9})
	}
	// Nobody can listen on 192.0.2.1 (RFC 5737), so that these need no sockets.
	upTo := func(from, to int, name string) {
		var next atomic.Int64
		next.Store(int64(from))
		var callers sync.WaitGroup
		for range atOnce {
			callers.Go(func() {
				for port := next.Add(1); port <= int64(to); port = next.Add(1) {
					if answer, err := create("192.0.2.1", int(port), name); err != nil || answer.Status != http.StatusCreated {
						t.Errorf("mapping %d: %v, %d %s", port, err, answer.Status, answer.Body)
						return
					}
				}
			})
		}
		callers.Wait()
	}
	upTo(0, 2_600, strings.Repeat("𝌆", 100))
	agent := s.Join(t, s.API, c)
	m := s.API.CreateMapping(t, programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: c.ID, Target: c.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: programs.Listen(t, programs.Echo).Port})
	programs.Eventually(t, back, func() error { return echo(m.LocalPort) })

	upTo(2_600, most-1, "") // with m these are all
	answer, err := create("127.0.0.1", 1, "")
	if err != nil || answer.Status != http.StatusForbidden || answer.Problem().Code != "quota_client_mappings" || !strings.Contains(string(answer.Body), fmt.Sprint(most)) {
		t.Errorf("one mapping more than there may be: %v, %d %s", err, answer.Status, answer.Body)
	}
	agent.Kill() // the next one is told all at once, and answers all at once
	agent = s.Join(t, s.API, c)
	programs.Eventually(t, back, func() error { return echo(m.LocalPort) })
	sessions := func() (n float64, err error) { return s.Metric("tunnox_sessions_welcomed_total") }
	before, err := sessions()
	if err != nil {
		t.Fatal(err)
	}
	s.API.Do(t, http.MethodPost, fmt.Sprintf("/api/v1/mappings/%d/disable", m.ID), nil, nil)
	programs.Eventually(t, back, func() error {
		if echo(m.LocalPort) == nil {
			return fmt.Errorf("the disabled mapping still carries bytes")
		}
		return nil
	})
	if after, err := sessions(); err != nil || after != before {
		t.Errorf("%v sessions instead of %v, %v", after, before, err)
	}
	if agent.Exited() {
		t.Error("the agent ended")
	}
}
