package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/truth"
)

// TestPush: with a thousand agents at two nodes, 500 changes, each for one agent, one
// after the other. It prints the time from the decision, which comes before the append,
// and from the API's answer to the open socket.
func TestPush(t *testing.T) {
	const changes, agents = 500, 1000
	c := start(t, 2)
	f := startFleet(t, c.Control.API, agents, c.Forwarders...)
	type change struct {
		id       int64
		answered time.Time
	}
	var made []change
	for i := range changes {
		source, target := f.clients[(i*7)%agents], f.clients[(i*7+1)%agents]
		m := c.Control.API.CreateMapping(t, programs.Mapping{UserID: source.UserID, Protocol: "tcp", Source: source.ID, Target: target.ID,
			LocalHost: "127.0.30.1", LocalPort: 10000 + i, TargetHost: "127.0.0.1", TargetPort: 9})
		made = append(made, change{m.ID, time.Now()})
	}
	programs.Eventually(t, 30*time.Second, func() error {
		for _, m := range made {
			if _, ok := f.openedAt(m.id); !ok {
				return fmt.Errorf("the listener of mapping %d is not open", m.id)
			}
		}
		return nil
	})
	log, err := truth.Read(c.Control.API)
	if err != nil {
		t.Fatal(err)
	}
	decided := map[int64]time.Time{}
	for _, r := range log.Records {
		if r.Name == "mapping_created" {
			decided[r.Stream.Number()] = r.Meta.At
		}
	}
	var fromDecision, fromAnswer []time.Duration
	for _, m := range made {
		at, _ := f.openedAt(m.id)
		fromDecision = append(fromDecision, at.Sub(decided[m.id]))
		fromAnswer = append(fromAnswer, at.Sub(m.answered))
	}
	slices.Sort(fromDecision)
	slices.Sort(fromAnswer)
	t.Logf("%d changes under %d agents: decision to applied p50 %v, p99 %v, most %v; answer to applied p50 %v, p99 %v", changes, agents,
		quantile(fromDecision, .5), quantile(fromDecision, .99), fromDecision[len(fromDecision)-1], quantile(fromAnswer, .5), quantile(fromAnswer, .99))
	if d := quantile(fromDecision, .99); d > time.Second && !pace.Race {
		t.Errorf("p99 from decision to applied is %v", d)
	}
}
