package httpapi_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	log "github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/usage/sqlite"
)

// counting notes from where records were counted.
type counting struct {
	httpapi.Search
	mu    sync.Mutex
	after []domain.Position // guarded by mu
}

func (c *counting) Count(ctx context.Context, q domain.Query) (int64, error) {
	c.mu.Lock()
	c.after = append(c.after, q.After)
	c.mu.Unlock()
	return c.Search.Count(ctx, q)
}

// TestSystemStatsAreRightAndCheap: nodes are those that are there, also before one
// has carried anything, and of the log only what is new is counted.
func TestSystemStatsAreRightAndCheap(t *testing.T) {
	file := filepath.Join(t.TempDir(), "usage.db")
	if _, err := log.Migrate(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cluster := &nodes{all: []httpapi.NodeStatus{{ID: "node-001", Roles: []string{httpapi.RoleControl, httpapi.RoleForwarder}},
		{ID: "node-002", Roles: []string{httpapi.RoleForwarder}}, {ID: "control-1", Roles: []string{httpapi.RoleControl}}}}
	now, search := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), &counting{}
	w := newWorld(t, func(c *httpapi.Config) {
		search.Search = c.Search
		c.Search, c.Usage, c.Nodes, c.Clock = search, store, cluster, func() time.Time { return now }
	})
	shows := func(want fields) {
		t.Helper()
		now = now.Add(6 * time.Second)
		w.do("GET", path("stats", "system"), nil).want(200).has(want)
	}
	shows(fields{"users": 0, "clients": 0, "mappings": 0, "nodes": 2})
	ann := w.user("ann")
	w.mapping(ann, w.client(ann, "a"), w.client(ann, "b"), 8000)
	shows(fields{"users": 1, "clients": 2, "mappings": 1})
	bob := w.user("bob")
	search.after = nil
	shows(fields{"users": 2, "clients": 2, "mappings": 1})
	for _, after := range search.after {
		if after == 0 {
			t.Errorf("the whole log was counted again: from %v", search.after)
		}
	}
	w.do("DELETE", path("users", ann), nil).want(204)
	w.do("POST", path("users", bob)+"/erase", nil).want(204)
	shows(fields{"users": 0, "clients": 0, "mappings": 0, "nodes": 2})
	search.after = nil
	shows(fields{"users": 0})
	if len(search.after) != 0 {
		t.Errorf("nothing is new, and it was counted from %v", search.after)
	}
	w.do("GET", path("stats", "realtime"), nil).want(200).has(fields{"nodes": 2})
	cluster.err = errors.New("the directory is away")
	shows(fields{"nodes": 0})
}
