package httpapi_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// nodes is a cluster that does what it is told.
type nodes struct {
	all       []httpapi.NodeStatus
	connected map[int64][]string
	asked     []string
	err       error
}

func (n *nodes) Nodes(context.Context) ([]httpapi.NodeStatus, error) { return n.all, n.err }

func (n *nodes) Drain(_ context.Context, id string) error {
	if n.err != nil {
		return n.err
	}
	if id == "node-002" {
		return httpapi.ErrNoNode // gone since it was listed
	}
	n.asked = append(n.asked, id)
	return nil
}

func (n *nodes) Disconnect(_ context.Context, id int64) ([]string, error) {
	return n.connected[id], n.err
}

func newNodes(t *testing.T) (*world, *nodes) {
	since := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	n := &nodes{connected: map[int64][]string{}, all: []httpapi.NodeStatus{
		{ID: "node-001", Roles: []string{httpapi.RoleForwarder}, State: "active", Version: "0.1.0", Agents: "192.0.2.10:8080", Bridge: "192.0.2.10:50052",
			Clients: 12, Streams: 5, Since: since, Seen: since.Add(time.Minute)},
		{ID: "node-002", Roles: []string{httpapi.RoleForwarder}, State: "draining", Agents: "192.0.2.11:8080", Since: since, Seen: since},
		{ID: "control-0a1b2c3d", Roles: []string{httpapi.RoleControl}, State: "active", API: "192.0.2.1:9000", Since: since, Seen: since, Leases: []string{"relay"}},
	}}
	return newWorld(t, func(c *httpapi.Config) { c.Nodes = n }), n
}

func TestNodesAreShown(t *testing.T) {
	w, _ := newNodes(t)
	list := w.do("GET", path("nodes"), nil).want(200)
	items := list.Body["items"].([]any)
	if len(items) != 3 || list.Body["next"] != nil {
		t.Fatalf("%s", list.Text)
	}
	w.do("GET", path("nodes", "node-001"), nil).want(200).has(fields{"node_id": "node-001", "state": "active", "version": "0.1.0",
		"agents_address": "192.0.2.10:8080", "bridge_address": "192.0.2.10:50052", "api_address": nil, "clients": 12, "streams": 5,
		"since": "2026-01-02T15:04:05Z", "seen": "2026-01-02T15:05:05Z"})
	control := w.do("GET", path("nodes", "control-0a1b2c3d"), nil).want(200).has(fields{"agents_address": nil, "api_address": "192.0.2.1:9000"})
	if leases := control.Body["leases"].([]any); len(leases) != 1 || leases[0] != "relay" {
		t.Errorf("leases are %v", leases)
	}
	if roles := items[0].(map[string]any)["roles"].([]any); len(roles) != 1 || roles[0] != "forwarder" {
		t.Errorf("roles are %v", roles)
	}
	w.do("GET", path("nodes", "node-009"), nil).fault(404, "node_not_found", "path.id")
	w.do("GET", path("nodes", "NODE"), nil).fault(422, "invalid", "path.id")
}

func TestNodesAreDrained(t *testing.T) {
	w, n := newNodes(t)
	w.do("POST", path("nodes", "node-001", "drain"), nil).want(200).has(fields{"node_id": "node-001", "state": "draining"})
	w.do("POST", path("nodes", "node-002", "drain"), nil).fault(404, "node_not_found", "path.id")
	w.do("POST", path("nodes", "node-003", "drain"), nil).fault(404, "node_not_found", "path.id")
	w.do("POST", path("nodes", "control-0a1b2c3d", "drain"), nil).fault(409, "node_not_drainable", "path.id")
	if !slices.Equal(n.asked, []string{"node-001"}) {
		t.Errorf("asked to drain: %v", n.asked)
	}
}

func TestClientsAreDisconnected(t *testing.T) {
	w, n := newNodes(t)
	client := w.client(w.user("ann"), "laptop")
	n.connected[client] = []string{"node-001", "node-002"}
	got := w.do("POST", path("clients", client, "disconnect"), nil).want(200).has(fields{"client_id": client})
	if at := got.Body["nodes"].([]any); len(at) != 2 || at[0] != "node-001" {
		t.Errorf("nodes are %v", at)
	}
	delete(n.connected, client)
	if at := w.do("POST", path("clients", client, "disconnect"), nil).want(200).Body["nodes"].([]any); len(at) != 0 {
		t.Errorf("nodes are %v", at)
	}
	w.do("POST", path("clients", 999, "disconnect"), nil).fault(404, "client_not_found", "path.id")
}

func TestADirectoryThatIsAwayIsToldAsThat(t *testing.T) {
	w, n := newNodes(t)
	client := w.client(w.user("ann"), "laptop")
	n.err = errors.New("redis: secret address")
	for _, call := range [][2]string{{"GET", path("nodes")}, {"GET", path("nodes", "node-001")}, {"POST", path("nodes", "node-001", "drain")},
		{"POST", path("clients", client, "disconnect")}} {
		got := w.do(call[0], call[1], nil).fault(503, "directory_unavailable")
		if got.Header.Get("Retry-After") == "" {
			t.Errorf("%v does not say when to try again", call)
		}
	}
	w.client(w.user("bob"), "commands go on")
}

func TestAProcessWithoutNodesHasNone(t *testing.T) {
	w := newWorld(t)
	if items := w.do("GET", path("nodes"), nil).want(200).Body["items"].([]any); len(items) != 0 {
		t.Errorf("nodes are %v", items)
	}
	w.do("POST", path("nodes", "node-001", "drain"), nil).fault(404, "node_not_found", "path.id")
	client := w.client(w.user("ann"), "laptop")
	w.do("POST", path("clients", client, "disconnect"), nil).want(200)
}
