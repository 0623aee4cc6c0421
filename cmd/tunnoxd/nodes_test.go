package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/services"
)

type shownNode struct {
	ID      string   `json:"node_id"`
	Roles   []string `json:"roles"`
	State   string   `json:"state"`
	Agents  string   `json:"agents_address"`
	Bridge  string   `json:"bridge_address"`
	Clients int      `json:"clients"`
	Leases  []string `json:"leases"`
}

// nodes gives what GET /nodes shows.
func (r *running) nodes(t *testing.T, key string) []shownNode {
	t.Helper()
	status, body, _ := r.call(t, key, http.MethodGet, "/api/v1/nodes", "")
	var list struct{ Items []shownNode }
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != http.StatusOK {
		t.Fatalf("nodes: %d %s", status, body)
	}
	return list.Items
}

func apiKeyIn(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestOneProcessIsOneNode(t *testing.T) {
	dir := t.TempDir()
	s, err := start(t, dir, serveArgs()...)
	if err != nil {
		t.Fatal(err)
	}
	key := apiKeyIn(t, dir)
	all := s.nodes(t, key)
	if len(all) != 1 || all[0].ID != "node-001" || strings.Join(all[0].Roles, " ") != "control forwarder" || all[0].Agents != s.addresses["agents"] {
		t.Fatalf("%+v", all)
	}
	drains(t, s, key, "node-001")
}

// drains asks a node to drain and waits until it says that it does.
func drains(t *testing.T, at *running, key, node string) {
	t.Helper()
	if status, body, _ := at.call(t, key, http.MethodPost, "/api/v1/nodes/"+node+"/drain", ""); status != http.StatusOK {
		t.Fatalf("drain: %d %s", status, body)
	}
	began := time.Now()
	for {
		status, body, _ := at.call(t, key, http.MethodGet, "/api/v1/nodes/"+node, "")
		if status == http.StatusOK && strings.Contains(body, `"state":"draining"`) {
			t.Logf("%s says that it drains after %v", node, time.Since(began))
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("it does not drain: %d %s", status, body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestNodesOfAClusterAreShownAndDrained(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir := t.TempDir()
	control, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	key := apiKeyIn(t, dir)
	var forwarders []*running
	for range 2 {
		f, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
			"--redis", redis, "--control", control.addresses["state"], "--join-token-file", filepath.Join(dir, "join-token"))
		if err != nil {
			t.Fatal(err)
		}
		forwarders = append(forwarders, f)
	}
	all := control.nodes(t, key)
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	for i, f := range forwarders {
		if n := all[i]; n.ID != fmt.Sprintf("node-%03d", i+1) || n.State != "active" || n.Agents != f.addresses["agents"] || n.Bridge != f.addresses["bridge"] || strings.Join(n.Roles, " ") != "forwarder" {
			t.Errorf("%+v", n)
		}
	}
	if n := all[2]; !strings.HasPrefix(n.ID, "control-") || strings.Join(n.Roles, " ") != "control" || strings.Join(n.Leases, " ") != "projector relay webhooks" {
		t.Errorf("%+v", n)
	}
	drains(t, control, key, "node-002")
	if all := control.nodes(t, key); all[0].State != "active" {
		t.Errorf("the other one: %+v", all[0])
	}
	if err := forwarders[1].stop(); err != nil {
		t.Fatal(err)
	}
	if all := control.nodes(t, key); len(all) != 2 {
		t.Errorf("after one has ended: %+v", all)
	}
	if status, body, _ := control.call(t, key, http.MethodPost, "/api/v1/nodes/node-002/drain", ""); status != http.StatusNotFound {
		t.Errorf("drain one that is gone: %d %s", status, body)
	}
}
