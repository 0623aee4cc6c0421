package flow

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// TestFlow is the first story of a newcomer: two agents join, bytes flow, a change
// takes effect while both run, and a delete ends the mapping's connections.
func TestFlow(t *testing.T) {
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		user := s.API.CreateUser(t, "ann")
		source := s.API.CreateClient(t, user.ID, "source")
		target := s.API.CreateClient(t, user.ID, "target")
		if source.Type != "managed" || source.Status != "offline" {
			t.Errorf("a new client is %+v, want managed and offline", source)
		}
		p := &pair{API: s.API, server: s, user: user, source: source, target: target}
		p.sourceAgent = s.Join(t, s.API, source) // credentials in a file
		p.targetAgent = s.Agent(t, []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", target.ID), "TUNNOX_AUTH_CODE=" + target.AuthCode})
		s.API.WaitOnline(t, target.ID)

		first := programs.Listen(t, answering("first")).Port
		second := programs.Listen(t, answering("second")).Port
		m := s.API.CreateMapping(t, p.wanted(programs.FreePort(t), first))
		waitAnswer(t, m.LocalPort, "first:hello")

		// The service is changed while the agents run; an open stream stays connected
		// to the old service.
		old := programs.Dial(t, m.LocalPort)
		expect(t, old, "first:")
		s.API.Do(t, http.MethodPut, path("/mappings/%d", m.ID), map[string]any{"target_port": second}, nil)
		waitAnswer(t, m.LocalPort, "second:hello")
		if _, err := old.Write([]byte("still")); err != nil {
			t.Error(err)
		}
		expect(t, old, "still")

		// Disabling and deleting end live streams and close the listener.
		for _, step := range []struct{ method, path string }{{"POST", "/disable"}, {"DELETE", ""}} {
			live := programs.Dial(t, m.LocalPort)
			expect(t, live, "second:")
			s.API.Do(t, step.method, path("/mappings/%d%s", m.ID, step.path), nil, nil)
			ended(t, live)
			closed(t, m.LocalPort)
			if step.path == "/disable" {
				s.API.Do(t, http.MethodPost, path("/mappings/%d/enable", m.ID), nil, nil)
				waitAnswer(t, m.LocalPort, "second:again")
			}
		}
		s.API.Refused(t, http.StatusNotFound, "mapping_not_found", http.MethodGet, path("/mappings/%d", m.ID), nil)

		if p.sourceAgent.Exited() || p.targetAgent.Exited() {
			t.Error("an agent had to be restarted")
		}
		var names []string
		for _, e := range programs.All[struct{ Name string }](t, s.API, path("/mappings/%d/history", m.ID)) {
			names = append(names, e.Name)
		}
		want := []string{"mapping_created", "mapping_changed", "mapping_disabled", "mapping_enabled", "mapping_deleted"}
		if !slices.Equal(names, want) {
			t.Errorf("history of the mapping is %v, want %v", names, want)
		}
	})
}

// TestAnonymous: an agent without identity gets one, keeps it over a restart, and can
// be an end of a mapping.
func TestAnonymous(t *testing.T) {
	t.Parallel() // it waits more than it works
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		state := t.TempDir()
		first := p.server.Agent(t, nil, "--state", state)
		var saved struct {
			ClientID int64 `json:"client_id"`
		}
		programs.Eventually(t, 10*time.Second, func() error {
			if err := readJSON(state+"/client.json", &saved); err != nil || saved.ClientID == 0 {
				return errors.Join(err, errors.New("no client id yet"))
			}
			return nil
		})
		if saved.ClientID < 200000000 || saved.ClientID > 299999999 {
			t.Fatalf("anonymous client got id %d", saved.ClientID)
		}
		if info, err := os.Stat(state + "/client.json"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("client.json: %v, %v, want mode 0600", info.Mode(), err)
		}
		p.WaitOnline(t, saved.ClientID)
		wanted := p.wanted(programs.FreePort(t), programs.Listen(t, answering("anonymous")).Port)
		wanted.Target = saved.ClientID
		m := p.CreateMapping(t, wanted)
		waitAnswer(t, m.LocalPort, "anonymous:hello")

		first.Kill()
		again := saved
		p.server.Agent(t, nil, "--state", state)
		waitAnswer(t, m.LocalPort, "anonymous:hello again")
		if err := readJSON(state+"/client.json", &again); err != nil || again != saved {
			t.Errorf("after a restart the agent is %+v, was %+v: %v", again, saved, err)
		}
	})
}

// TestRefusals: a forbidden request is refused with its code, by the API and at the
// agent.
func TestRefusals(t *testing.T) {
	t.Parallel() // it waits more than it works
	inBothFormsAtOnce(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())

		// A credential of another client, and one for a client that does not exist.
		// Both are told the same: who asks must not learn which clients there are.
		const code = "bad_credential"
		for _, id := range []int64{p.source.ID, 699999999} {
			agent := p.server.Agent(t, []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", id), "TUNNOX_AUTH_CODE=" + p.target.AuthCode})
			agent.Says(code, 10*time.Second)
			if status := agent.Fails(10 * time.Second); status != 3 {
				t.Errorf("an agent that is refused for good ends with status %d, want 3", status)
			}
		}
		if p.sourceAgent.Exited() {
			t.Error("a wrong credential pushed out the agent that has the right one")
		}

		// The wrong server: its identity is not the pinned one.
		wrong := programs.Start(t, "tunnox", []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", p.source.ID), "TUNNOX_AUTH_CODE=" + p.source.AuthCode},
			"agent", "--server", p.server.Agents, "--state", t.TempDir(),
			"--pin", "sha256:"+strings.Repeat("0", 64))
		wrong.Says(`(?i)pin|identity|certificate`, 10*time.Second)
		wrong.Abandon()

		// A mapping with a client of another user.
		bob := p.CreateUser(t, "bob")
		stranger := p.CreateClient(t, bob.ID, "stranger")
		wanted := p.wanted(programs.FreePort(t), 80)
		for _, end := range []*int64{&wanted.Source, &wanted.Target} {
			own := *end
			*end = stranger.ID
			p.Refused(t, http.StatusForbidden, "client_not_owned", http.MethodPost, path("/mappings"), wanted)
			*end = own
		}

		// Over quota, each limit with its code.
		quota := map[string]any{"max_clients": 2, "max_mappings": 1, "max_active_mappings": nil,
			"max_connections_per_mapping": 2, "total_bandwidth_limit": nil, "monthly_traffic_limit": nil}
		p.Do(t, http.MethodPut, path("/users/%d/quota", p.user.ID), quota, nil)
		p.Refused(t, http.StatusForbidden, "quota_clients", http.MethodPost, path("/clients"),
			map[string]any{"user_id": p.user.ID, "client_name": "third"})
		m := p.CreateMapping(t, p.wanted(programs.FreePort(t), programs.Listen(t, answering("svc")).Port))
		waitAnswer(t, m.LocalPort, "svc:hello")
		wanted.LocalPort = programs.FreePort(t)
		p.Refused(t, http.StatusForbidden, "quota_mappings", http.MethodPost, path("/mappings"), wanted)
		quota["max_mappings"], quota["max_active_mappings"] = 5, 1
		p.Do(t, http.MethodPut, path("/users/%d/quota", p.user.ID), quota, nil)
		p.Refused(t, http.StatusForbidden, "quota_active_mappings", http.MethodPost, path("/mappings"), wanted)

		// Connections of a mapping: the third one gets nothing, and a freed place can
		// be used again.
		a, b := programs.Dial(t, m.LocalPort), programs.Dial(t, m.LocalPort)
		expect(t, a, "svc:")
		expect(t, b, "svc:")
		ended(t, programs.Dial(t, m.LocalPort))
		_ = b.Close()
		waitAnswer(t, m.LocalPort, "svc:again")

		// A deleted client loses its agent, its mappings and their streams.
		p.Do(t, http.MethodDelete, path("/clients/%d", p.target.ID), nil, nil)
		ended(t, a)
		closed(t, m.LocalPort)
		p.targetAgent.Says("client_deleted|client_revoked|unknown_client", 10*time.Second)
		p.targetAgent.Abandon()
	})
}

// TestNewerAgentFencesOlder: of two agents with one client id the newer one serves. The
// older one learns which agent that is, leaves the client alone, and ends in order when
// it is told to.
func TestNewerAgentFencesOlder(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		waitAnswer(t, m.LocalPort, "svc:hello")
		for _, end := range []struct {
			client programs.Client
			older  *programs.Process
		}{{p.target, p.targetAgent}, {p.source, p.sourceAgent}} {
			newer := p.server.Agent(t, []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", end.client.ID), "TUNNOX_AUTH_CODE=" + end.client.AuthCode})
			end.older.Says("another agent has this identity.*superseded.*it is at 127", 10*time.Second)
			waitAnswer(t, m.LocalPort, "svc:over the newer")
			if newer.Exited() || end.older.Exited() {
				t.Errorf("the newer agent ended: %v, the older: %v", newer.Exited(), end.older.Exited())
			}
			if err := end.older.Stop(); err != nil {
				t.Errorf("the older agent: %v", err)
			}
		}
	})
}

// TestOrderedRestart: a server that is told to end does so in order, and agents connect
// again when it is back.
func TestOrderedRestart(t *testing.T) {
	t.Parallel()
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		p := newPair(t, s)
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		waitAnswer(t, m.LocalPort, "svc:hello")
		live := programs.Dial(t, m.LocalPort)
		expect(t, live, "svc:")
		pin := s.Pin
		began := time.Now()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		t.Logf("the server ended after %v with a stream open", time.Since(began).Round(time.Millisecond))
		ended(t, live)
		s.Restart(t)
		if again := s.Says(`--pin (sha256:\S+)`, 10*time.Second)[1]; again != pin {
			t.Errorf("the server's identity was %s and is %s", pin, again)
		}
		waitAnswer(t, m.LocalPort, "svc:after")
		if p.sourceAgent.Exited() || p.targetAgent.Exited() {
			t.Error("an agent ended with the server")
		}
		p.checkReadModels(t)
	})
}

// TestTargetPolicy: the agent's owner decides which services may be dialled.
func TestTargetPolicy(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		// The end of the connection proves nothing: these addresses may be unreachable
		// from here. The target agent must say that it did not dial. Each address has a
		// mapping of its own, because a mapping's second refusal is not reported for a
		// minute.
		var m programs.Mapping
		for _, host := range []string{"169.254.169.254", "192.0.2.1"} {
			wanted := p.wanted(programs.FreePort(t), 80)
			wanted.TargetHost = host
			m = p.CreateMapping(t, wanted)
			ended(t, programs.Dial(t, m.LocalPort))
			p.targetAgent.Says("policy does not allow "+regexp.QuoteMeta(host), 10*time.Second)
		}
		service := programs.Listen(t, answering("allowed")).Port
		p.Do(t, http.MethodPut, path("/mappings/%d", m.ID), map[string]any{"target_host": "127.0.0.1", "target_port": service}, nil)
		waitAnswer(t, m.LocalPort, "allowed:hello")
	})
}

// expect reads exactly the text.
func expect(t *testing.T, from interface {
	io.Reader
	SetReadDeadline(time.Time) error
}, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if err := from.SetReadDeadline(time.Now().Add(pace.Guard)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(from, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v; want %q", b, err, text)
	}
}

// ended waits until a connection is closed by the other side.
func ended(t *testing.T, c interface {
	io.Reader
	SetReadDeadline(time.Time) error
}) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(pace.Guard)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) || n > 0 {
		t.Errorf("the connection should be ended; it read %d bytes, %v", n, err)
	}
}

// closed waits until nobody listens on a local port.
func closed(t *testing.T, port int) {
	t.Helper()
	programs.Eventually(t, 5*time.Second, func() error {
		if open(port) {
			return fmt.Errorf("port %d is still open", port)
		}
		return nil
	})
}
