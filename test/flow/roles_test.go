package flow

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestRolesApart: control plane and forwarder are two processes, and the forwarder gets
// no Postgres. Without the control plane, present mappings still work.
func TestRolesApart(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	control := programs.StartServer(t, "control", "--postgres", postgres, "--redis", redis)
	forwarder := programs.StartServer(t, "forwarder", "--redis", redis, "--cluster-ca", filepath.Join(control.Dir, "cluster-ca.pem"))
	p := newPairOn(t, control.API, forwarder)

	first := programs.Listen(t, answering("first")).Port
	second := programs.Listen(t, answering("second")).Port
	m := p.CreateMapping(t, p.wanted(programs.FreePort(t), first))
	waitAnswer(t, m.LocalPort, "first:hello")
	p.Do(t, http.MethodPut, path("/mappings/%d", m.ID), map[string]any{"target_port": second}, nil)
	waitAnswer(t, m.LocalPort, "second:hello")

	var shown programs.Client
	p.Do(t, http.MethodGet, path("/clients/%d", p.source.ID), nil, &shown)
	if shown.Status != "online" || !strings.HasPrefix(shown.NodeID, "node-") {
		t.Errorf("the control plane shows %+v, want it online at a node", shown)
	}

	live := programs.Dial(t, m.LocalPort)
	expect(t, live, "second:")
	control.Kill()
	if err := ask(m.LocalPort, "second:without control plane"); err != nil {
		t.Error(err)
	}
	if _, err := live.Write([]byte("still")); err != nil {
		t.Error(err)
	}
	expect(t, live, "still")

	control.Restart(t)
	p.Do(t, http.MethodDelete, path("/mappings/%d", m.ID), nil, nil)
	ended(t, live)
	closed(t, m.LocalPort)

	p.sourceAgent.Kill()
	programs.Eventually(t, 20*time.Second, func() error {
		answer, err := p.Call(http.MethodGet, path("/clients/%d", p.source.ID), nil)
		if err == nil && !strings.Contains(string(answer.Body), `"offline"`) {
			err = errOnline
		}
		return err
	})
}
