package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// nodes is a cluster that does what it is told.
type nodes struct {
	all       []httpapi.NodeStatus
	connected map[int64][]httpapi.ClientSession
	asked     []string // to drain
	expelled  []string
	ended     []int64 // clients whose sessions were to end
	err       error   // of everything but Lookup
	away      error   // of Lookup
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

func (n *nodes) Expel(_ context.Context, id string) error {
	if n.err == nil {
		n.expelled = append(n.expelled, id)
	}
	return n.err
}

func (n *nodes) Disconnect(_ context.Context, id int64) ([]string, error) {
	if n.err != nil {
		return nil, n.err
	}
	var told []string
	for _, s := range n.connected[id] {
		told = append(told, s.Node)
	}
	n.ended = append(n.ended, id)
	return told, nil
}

// Lookup implements httpapi.Presence.
func (n *nodes) Lookup(_ context.Context, ids ...int64) ([]httpapi.ClientPresence, error) {
	present := make([]httpapi.ClientPresence, len(ids))
	for i, id := range ids {
		present[i] = httpapi.ClientPresence{Online: len(n.connected[id]) > 0, Sessions: n.connected[id]}
	}
	return present, n.away
}

func newNodes(t *testing.T) (*world, *nodes) {
	since := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	n := &nodes{connected: map[int64][]httpapi.ClientSession{}, all: []httpapi.NodeStatus{
		{ID: "node-001", Roles: []string{httpapi.RoleForwarder}, State: "active", Version: "0.1.0", Agents: "192.0.2.10:8080", Bridge: "192.0.2.10:50052",
			Clients: 12, Streams: 5, Since: since, Seen: since.Add(time.Minute)},
		{ID: "node-002", Roles: []string{httpapi.RoleForwarder}, State: "draining", Agents: "192.0.2.11:8080", Since: since, Seen: since},
		{ID: "control-0a1b2c3d", Roles: []string{httpapi.RoleControl}, State: "active", API: "192.0.2.1:9000", Since: since, Seen: since, Leases: []string{"relay"}},
	}}
	return newWorld(t, func(c *httpapi.Config) { c.Nodes, c.Presence = n, n }), n
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
	planned := w.do("POST", path("nodes", "node-001", "drain")+"?dry_run=true", nil).want(200)
	if ends := planned.Body["ends"].(map[string]any); !slices.Equal(planned.names(), []string{"node_drain_requested"}) || ends["sessions"] != 12.0 || ends["streams"] != 0.0 {
		t.Errorf("a dry run tells %s", planned.Text)
	}
	if len(n.asked) > 0 {
		t.Errorf("a dry run asked %v to drain", n.asked)
	}
	got := w.do("POST", path("nodes", "node-001", "drain"), nil).want(200).has(fields{"node_id": "node-001", "state": "draining"})
	w.do("POST", path("nodes", "node-003", "drain"), nil).fault(404, "node_not_found", "path.id")
	w.do("POST", path("nodes", "control-0a1b2c3d", "drain"), nil).fault(409, "node_not_drainable", "path.id")
	if !slices.Equal(n.asked, []string{"node-001"}) {
		t.Errorf("asked to drain: %v", n.asked)
	}
	all := w.do("GET", "/api/v1/audit?subject=node-001", nil).want(200)
	event := all.Body["items"].([]any)[0].(map[string]any)
	data, meta := event["data"].(map[string]any), event["meta"].(map[string]any)
	if event["owner"] != nil || data["node_id"] != "node-001" || data["since"] != "2026-01-02T15:04:05Z" || meta["command"] != "drain_node" ||
		meta["actor"] == "" || meta["request"] != got.Header.Get("X-Request-ID") || meta["source"] == "" || formatID(int64(event["position"].(float64))) != got.position() {
		t.Errorf("the log has %s", all.Text)
	}
	w.do("POST", "/api/v1/events/"+got.position()+"/revert", nil).fault(409, "not_revertible")
	w.do("POST", path("nodes", "node-002", "drain"), nil).fault(404, "node_not_found", "path.id")
}

// A node is revoked in the log first, and then it loses what it has in the directory. A
// node that is away can be revoked, a control plane cannot.
func TestNodesAreRevoked(t *testing.T) {
	w, n := newNodes(t)
	if names := w.do("POST", path("nodes", "node-001", "revoke")+"?dry_run=true", nil).want(200).names(); !slices.Equal(names, []string{"node_revoked"}) || len(n.expelled) > 0 {
		t.Errorf("a dry run would write %v, and expelled %v", names, n.expelled)
	}
	w.do("POST", path("nodes", "node-001", "revoke"), nil).want(200).has(fields{"node_id": "node-001", "state": "revoked"})
	w.do("POST", path("nodes", "node-001", "revoke"), nil).want(200)
	n.err = errors.New("Redis is away")
	w.do("POST", path("nodes", "node-005", "revoke"), nil).fault(503, "directory_unavailable")
	n.err = nil
	w.do("POST", path("nodes", "node-005", "revoke"), nil).want(200)
	if !slices.Equal(n.expelled, []string{"node-001", "node-001", "node-005"}) {
		t.Errorf("expelled are %v", n.expelled)
	}
	revoked := w.do("GET", "/api/v1/audit?subject=node-001", nil).want(200)
	if items := revoked.Body["items"].([]any); len(items) != 1 || items[0].(map[string]any)["name"] != "node_revoked" {
		t.Errorf("the log has %s", revoked.Text)
	}
	n.all = append(n.all, httpapi.NodeStatus{ID: "node-004", Roles: []string{httpapi.RoleControl, httpapi.RoleForwarder}, Agents: "192.0.2.9:8080"})
	w.do("POST", path("nodes", "node-004", "revoke"), nil).fault(409, "node_not_revocable", "path.id")
	w.do("POST", path("nodes", "control-0a1b2c3d", "revoke"), nil).fault(404, "node_not_found", "path.id")
}

// A repeat gives the first answer, and asks again only the life of the node that
// was meant.
func TestADrainIsOfOneLifeOfItsNode(t *testing.T) {
	w, n := newNodes(t)
	drain := func(query string) *answer {
		return w.do("POST", path("nodes", "node-001", "drain")+query, nil, "Idempotency-Key", "once")
	}
	first := drain("").want(200)
	again := drain("").want(200)
	if again.Header.Get("Idempotency-Replayed") != "true" || again.position() != first.position() || again.Text != first.Text || len(n.asked) != 2 {
		t.Errorf("a repeat: %s %v; asked %v", again.Text, again.Header, n.asked)
	}
	n.all[0].Since = n.all[0].Since.Add(time.Hour)
	if drain("").want(200).position() != first.position() || len(n.asked) != 2 {
		t.Errorf("a repeat reached another life of the node: %v", n.asked)
	}
	n.all = n.all[1:]
	if gone := drain("").want(200); gone.Text != first.Text || gone.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("a repeat, with the node gone: %s", gone.Text)
	}
	if names := drain("?dry_run=true").want(200).names(); len(names) > 0 {
		t.Errorf("a dry run of a repeat tells %v", names)
	}
	w.do("POST", path("nodes", "node-001", "drain"), nil, "Idempotency-Key", "another").fault(404, "node_not_found", "path.id")
	w.do("POST", path("clients", w.client(w.user("ann"), "a"), "disconnect"), nil, "Idempotency-Key", "two").want(200)
	w.do("POST", path("nodes", "node-001", "drain"), nil, "Idempotency-Key", "two").fault(422, "idempotency_mismatch")
}

func TestClientsAreDisconnected(t *testing.T) {
	w, n := newNodes(t)
	ann := w.user("ann")
	client := w.client(ann, "laptop")
	m := w.mapping(ann, client, client, 80)
	n.connected[client] = []httpapi.ClientSession{{Node: "node-002", Epoch: 8}, {Node: "node-001", Epoch: 7}}
	planned := w.do("POST", path("clients", client, "disconnect")+"?dry_run=true", nil).want(200)
	ends := planned.Body["ends"].(map[string]any)
	if !slices.Equal(planned.names(), []string{"client_disconnect_requested"}) || ends["sessions"] != 2.0 ||
		fmt.Sprint(ends["clients"], ends["mappings"]) != fmt.Sprint([]any{float64(client)}, []any{float64(m)}) || len(n.ended) > 0 {
		t.Errorf("a dry run tells %s and ended sessions of %v", planned.Text, n.ended)
	}
	got := w.do("POST", path("clients", client, "disconnect"), nil).want(200).has(fields{"client_id": client})
	if at := got.Body["nodes"].([]any); len(at) != 2 || at[0] != "node-001" || at[1] != "node-002" {
		t.Errorf("nodes are %v", at)
	}
	events := w.do("GET", path("clients", client, "history"), nil).want(200)
	last := events.Body["items"].([]any)[1].(map[string]any)
	data, meta := last["data"].(map[string]any), last["meta"].(map[string]any)
	if last["name"] != "client_disconnect_requested" || last["owner"] != float64(ann) || data["epoch"] != 8.0 || len(data["nodes"].([]any)) != 2 ||
		meta["command"] != "disconnect_client" || meta["request"] != got.Header.Get("X-Request-ID") || formatID(int64(last["position"].(float64))) != got.position() {
		t.Errorf("the log has %s", events.Text)
	}
	w.do("POST", "/api/v1/events/"+got.position()+"/revert", nil).fault(409, "not_revertible")
	delete(n.connected, client)
	if at := w.do("POST", path("clients", client, "disconnect"), nil).want(200).Body["nodes"].([]any); len(at) != 0 {
		t.Errorf("nodes are %v", at)
	}
	if !slices.Equal(n.ended, []int64{client, client}) {
		t.Errorf("sessions ended of %v", n.ended)
	}
	w.do("POST", path("clients", client, "disconnect"), nil, "If-Match", `"1"`).fault(412, "version_conflict", "header.If-Match")
	w.do("POST", path("clients", 999, "disconnect"), nil).fault(404, "client_not_found", "path.id")
}

// A repeat ends what the first request was to end and did not, and nothing that
// began since.
func TestADisconnectIsOfTheSessionsOfThen(t *testing.T) {
	w, n := newNodes(t)
	client := w.client(w.user("ann"), "laptop")
	disconnect := func() *answer {
		return w.do("POST", path("clients", client, "disconnect"), nil, "Idempotency-Key", "once")
	}
	n.connected[client] = []httpapi.ClientSession{{Node: "node-001", Epoch: 7}}
	head := w.log.head()
	n.err = errors.New("redis: gone in between")
	if got := disconnect().fault(503, "directory_unavailable"); !strings.Contains(got.Text, fmt.Sprintf("in the log at position %d", head+1)) {
		t.Errorf("what is half done says %s", got.Text)
	}
	n.err = nil
	first := disconnect().want(200)
	if at := first.Body["nodes"].([]any); len(at) != 1 || len(n.ended) != 1 || first.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the repeat of a half done one: %s, ended %v", first.Text, n.ended)
	}
	n.connected[client] = []httpapi.ClientSession{{Node: "node-002", Epoch: 8}}
	if again := disconnect().want(200); again.Text != first.Text || len(n.ended) != 1 {
		t.Errorf("a repeat: %s, ended %v", again.Text, n.ended)
	}
	if now := w.log.head(); now != head+1 {
		t.Errorf("%d records were written", now-head)
	}
}

func TestADirectoryThatIsAwayIsToldAsThat(t *testing.T) {
	w, n := newNodes(t)
	client := w.client(w.user("ann"), "laptop")
	n.err = errors.New("redis: secret address")
	n.away = n.err
	head := w.log.head()
	for _, call := range [][2]string{{"GET", path("nodes")}, {"GET", path("nodes", "node-001")}, {"POST", path("nodes", "node-001", "drain")},
		{"POST", path("clients", client, "disconnect")}} {
		got := w.do(call[0], call[1], nil).fault(503, "directory_unavailable")
		if got.Header.Get("Retry-After") == "" {
			t.Errorf("%v does not say when to try again", call)
		}
	}
	if now := w.log.head(); now != head {
		t.Errorf("%d records were written of what was not done", now-head)
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
