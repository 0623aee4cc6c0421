package forwarder_test

import (
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
)

// TestClaimedAgentGoesOn: an anonymous agent whose client is claimed takes over
// the new id without a restart, with its credential and its mappings; one that
// was away is told when it comes back.
func TestClaimedAgentGoesOn(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		state := &agent.State{File: t.TempDir() + "/client.json"}
		target := w.agent(client{}, func(cfg *agent.Config) { cfg.State = state })
		source := w.client(w.user)
		w.agent(source)
		m := w.mapping(source, client{id: target.ClientID()}, greet(t, "hello"))
		w.listening(m)
		if got, err := heard(m.address); got != "hello" {
			t.Fatalf("before the claim: %q, %v", got, err)
		}
		claim := func(old int64) int64 {
			t.Helper()
			saved, err := state.Load()
			if err != nil {
				t.Fatal(err)
			}
			id := domain.FirstClientID + 5000 + w.plane.ids.Add(1)
			w.plane.do(t, domain.ClaimClient{ID: old, NewID: id, UserID: w.user, PublicKey: saved.Credential.PublicKey()})
			return id
		}
		began := time.Now()
		next := claim(target.ClientID())
		eventually(t, "the agent is the new client", func() bool { return target.ClientID() == next })
		t.Logf("the agent took over its new id in %v", time.Since(began))
		if saved, err := state.Load(); err != nil || saved.ClientID != next {
			t.Errorf("saved as %d, %v", saved.ClientID, err)
		}
		eventually(t, "the mapping leads to the new client", func() bool { got, err := heard(m.address); return err == nil && got == "hello" })

		// Away while it is claimed.
		away := &agent.State{File: t.TempDir() + "/client.json"}
		state = away
		other := w.agent(client{}, func(cfg *agent.Config) { cfg.State = away })
		old := other.ClientID()
		if err := other.stop(); err != nil {
			t.Fatal(err)
		}
		next = claim(old)
		back := w.agent(client{}, func(cfg *agent.Config) { cfg.State = away })
		eventually(t, "the agent that was away is the new client", func() bool { return back.ClientID() == next })
	})
}
