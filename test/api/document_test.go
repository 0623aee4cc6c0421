package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// document is the part of the OpenAPI document that the tests read.
type document struct {
	Paths map[string]map[string]*operation
	mux   *http.ServeMux // finds the operation of a request
	byID  map[string]*operation
}

type operation struct {
	ID         string `json:"operationId"`
	Parameters []struct {
		Name, In string
		Schema   struct {
			Enum    []string
			Minimum *int64
			Maximum *int64
		}
	}
	RequestBody json.RawMessage
	Responses   map[string]struct{ Content map[string]json.RawMessage }

	method, path string
}

// readDocument reads the reviewed document. A test of package httpapi checks that
// servers serve the same.
func readDocument(t *testing.T) *document {
	t.Helper()
	text, err := os.ReadFile("../../httpapi/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	d := &document{mux: http.NewServeMux(), byID: map[string]*operation{}}
	if err := json.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			d.byID[op.ID] = op
			d.mux.Handle(op.method+" "+path, op)
		}
	}
	return d
}

// ServeHTTP lets a mux find an operation.
func (*operation) ServeHTTP(http.ResponseWriter, *http.Request) {}

// operations gives the operations with all of these parameters, by id.
func (d *document) operations(parameters ...string) []*operation {
	var found []*operation
	for _, id := range slices.Sorted(maps.Keys(d.byID)) {
		if op := d.byID[id]; !slices.ContainsFunc(parameters, func(p string) bool { return !op.has(p) }) {
			found = append(found, op)
		}
	}
	return found
}

func (op *operation) has(parameter string) bool {
	for _, p := range op.Parameters {
		if p.Name == parameter {
			return true
		}
	}
	return false
}

// calls are the operations that have succeeded.
type calls struct {
	doc *document
	mu  sync.Mutex
	ids map[string]bool // guarded by mu
}

func (c *calls) note(r *http.Request) {
	handler, _ := c.doc.mux.Handler(r)
	if op, ok := handler.(*operation); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ids[op.ID] = true
	}
}

// missing gives the operations of the document that have not succeeded.
func (c *calls) missing() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for _, op := range c.doc.operations() {
		if !c.ids[op.ID] {
			ids = append(ids, op.ID)
		}
	}
	return ids
}
