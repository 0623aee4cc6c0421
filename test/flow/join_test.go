package flow

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestJoin is the first minute of two machines: each joins with an invitation, over the
// agents' port only, and then its agent needs no flags. If more machines than uses try
// to join, exactly as many join as the invitation has uses, also when all come at once.
func TestJoin(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		user := s.API.CreateUser(t, "ann")
		invite := func(uses int) string {
			t.Helper()
			var made struct{ Code string }
			s.API.Do(t, "POST", "/api/v1/invites", map[string]any{"user_id": user.ID, "uses": uses}, &made)
			return made.Code
		}
		began := time.Now()
		ends := []programs.Client{joined(t, invite(1), "laptop"), joined(t, invite(1), "datacentre")}
		for _, end := range ends {
			s.API.WaitOnline(t, end.ID)
		}
		service := programs.Listen(t, answering("svc")).Port
		port := programs.FreePort(t)
		s.API.CreateMapping(t, programs.Mapping{UserID: user.ID, Source: ends[0].ID, LocalPort: port,
			Target: ends[1].ID, TargetHost: "127.0.0.1", TargetPort: service, Protocol: "tcp"})
		waitAnswer(t, port, "svc:hello")
		t.Logf("from two invitations to the first byte: %v", time.Since(began).Round(time.Millisecond))

		const machines, uses = 8, 3
		code := invite(uses)
		var all sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for n := range machines {
			all.Go(func() {
				p := programs.Start(t, "tunnox", nil, "join", code, "--state", filepath.Join(t.TempDir(), fmt.Sprint(n)))
				if p.Wait(20*time.Second) != nil {
					if status := p.Fails(time.Second); status != 3 {
						t.Errorf("a machine too many ended with %d", status)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				in++
			})
		}
		all.Wait()
		if in != uses {
			t.Errorf("%d of %d machines joined with an invitation for %d", in, machines, uses)
		}
	})
}

// joined lets a machine join, starts its agent and gives its client.
func joined(t *testing.T, code, name string) programs.Client {
	t.Helper()
	state := t.TempDir()
	join := programs.Start(t, "tunnox", nil, "join", code, "--state", state, "--name", name)
	if err := join.Wait(20 * time.Second); err != nil {
		t.Fatalf("join: %v\n%s", err, join.Said(1<<10))
	}
	b, err := os.ReadFile(filepath.Join(state, "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		ClientID int64 `json:"client_id"`
	}
	if err := json.Unmarshal(b, &kept); err != nil {
		t.Fatal(err)
	}
	programs.Start(t, "tunnox", nil, "agent", "--state", state)
	return programs.Client{ID: kept.ClientID, Name: name}
}
