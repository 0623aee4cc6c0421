package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// created makes something over the API and gives its fields.
func (r *running) created(t *testing.T, key, path, body string) map[string]any {
	t.Helper()
	status, answer, _ := r.call(t, key, http.MethodPost, path, body)
	var fields map[string]any
	if err := json.Unmarshal([]byte(answer), &fields); err != nil || status != http.StatusCreated {
		t.Fatalf("POST %s: %d %s", path, status, answer)
	}
	return fields
}

// joined runs the agent of a client that was just created.
func joined(t *testing.T, server string, pin transport.Pin, client map[string]any) *agent.Agent {
	t.Helper()
	credential, err := wire.ParseAuthCode(client["auth_code"].(string))
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{Servers: []string{server}, Sessions: 1, Version: "test",
		Identity: agent.Identity{ClientID: int64(client["client_id"].(float64)), Credential: credential},
		Dial: func(ctx context.Context, server string) (transport.Session, error) {
			return transport.DialTLS(ctx, server, transport.DialConfig{Pins: []transport.Pin{pin}})
		}})
	if err != nil {
		t.Fatal(err)
	}
	working(t, a.Run)
	return a
}

// What an agent may ask for itself, it may with the control plane in the
// forwarder's process and over the State service.
func TestAgentsMakeMappingsThemselves(t *testing.T) {
	t.Run("one process", func(t *testing.T) {
		dir := t.TempDir()
		s, err := start(t, dir, serveArgs()...)
		if err != nil {
			t.Fatal(err)
		}
		agentsMakeMappings(t, s, s, apiKeyIn(t, dir))
	})
	t.Run("cluster", func(t *testing.T) {
		redis, dir := services.Redis(t), t.TempDir()
		control, err := startControl(t, dir, nil, services.Postgres(t), redis)
		if err != nil {
			t.Fatal(err)
		}
		f, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
			"--redis", redis, "--control", control.addresses["state"], "--join-token-file", filepath.Join(dir, "join-token"))
		if err != nil {
			t.Fatal(err)
		}
		agentsMakeMappings(t, control, f, apiKeyIn(t, dir))
	})
}

func agentsMakeMappings(t *testing.T, control, forwarder *running, key string) {
	server, pin := forwarder.said(t)
	user := int64(control.created(t, key, "/api/v1/users", `{"username":"ann","email":"ann@example.org"}`)["user_id"].(float64))
	client := func(name string) map[string]any {
		return control.created(t, key, "/api/v1/clients", fmt.Sprintf(`{"user_id":%d,"client_name":%q,"commands":"all"}`, user, name))
	}
	one, two, third := client("one"), client("two"), client("third")
	id := func(client map[string]any) int64 { return int64(client["client_id"].(float64)) }
	if status, body, _ := control.call(t, key, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", user), `{"max_mappings":1}`); status != http.StatusOK {
		t.Fatalf("quota: %d %s", status, body)
	}
	a, stranger := joined(t, server, pin, one), joined(t, server, pin, third)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	do := func(a *agent.Agent, want string, c *wirepb.Command) *wirepb.Result {
		t.Helper()
		r, err := a.Do(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if r.GetCode() != want {
			t.Fatalf("%v: code %q (%s), want %q", c, r.GetCode(), r.GetMessage(), want)
		}
		return r
	}
	create := func(key string, port uint32) *wirepb.Command {
		return &wirepb.Command{Key: key, Command: &wirepb.Command_CreateMapping{CreateMapping: &wirepb.CreateMapping{SourceClientId: id(one), TargetClientId: id(two),
			Protocol: "tcp", Name: "own", LocalPort: port, TargetHost: "127.0.0.1", TargetPort: 80}}}
	}
	list := &wirepb.Command{Command: &wirepb.Command_ListMappings{ListMappings: &wirepb.ListMappings{}}}
	remove := func(mapping int64) *wirepb.Command {
		return &wirepb.Command{Command: &wirepb.Command_DeleteMapping{DeleteMapping: &wirepb.DeleteMapping{MappingId: mapping}}}
	}
	made := do(a, "", create("once", 18080)).Mappings[0]
	if made.GetSourceClientId() != id(one) || made.GetLocalPort() != 18080 || made.GetLocalHost() == "" {
		t.Errorf("made %v", made)
	}
	if again := do(a, "", create("once", 18080)).Mappings[0]; again.GetMappingId() != made.GetMappingId() {
		t.Errorf("a repeat made %v", again)
	}
	do(a, "idempotency_mismatch", create("once", 18081))
	do(a, "quota_mappings", create("", 18081))
	do(a, "invalid", create("", 70000))
	if all := do(a, "", list).Mappings; len(all) != 1 || all[0].GetMappingId() != made.GetMappingId() {
		t.Errorf("listed %v", all)
	}
	if all := do(stranger, "", list).Mappings; len(all) != 0 {
		t.Errorf("another client lists %v", all)
	}
	if r, err := stranger.Do(ctx, remove(made.GetMappingId())); err != nil || r.GetCode() == "" {
		t.Errorf("another client may delete it: %v, %v", r, err)
	}
	do(a, "malformed", &wirepb.Command{})
	status, body, _ := control.call(t, key, http.MethodGet, fmt.Sprintf("/api/v1/mappings/%d/history", made.GetMappingId()), "")
	var history struct {
		Items []struct{ Meta struct{ Actor string } }
	}
	if err := json.Unmarshal([]byte(body), &history); err != nil || status != http.StatusOK || len(history.Items) == 0 || history.Items[0].Meta.Actor != fmt.Sprintf("client:%d", id(one)) {
		t.Errorf("history: %d %s", status, body)
	}
	do(a, "", remove(made.GetMappingId()))
	do(a, "", create("", 18081)) // there is room again
}
