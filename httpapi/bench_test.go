package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

// canned is an executor that gives one receipt for everything.
type canned struct {
	*memoryLog
	receipt domain.Receipt
}

func (c canned) Submit(context.Context, domain.Submission) (domain.Receipt, error) {
	return c.receipt, nil
}

// serve answers one request and throws the answer away.
func serve(b *testing.B, handler http.Handler, method, path, body string, status int) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+apiKey)
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	if rec.Code != status {
		b.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
}

// BenchmarkCreateMapping is a POST from request to answer with nothing behind
// it: what this package costs a command.
func BenchmarkCreateMapping(b *testing.B) {
	w := newWorld(b)
	user := w.user("ann")
	source, target := w.client(user, "a"), w.client(user, "b")
	id := w.mapping(user, source, target, 80)
	records, err := w.log.ReadStream(b.Context(), domain.MappingStream(id), 0, 1)
	if err != nil {
		b.Fatal(err)
	}
	w = newWorld(b, func(c *httpapi.Config) {
		c.Executor = canned{c.Executor.(*memoryLog), domain.Receipt{Subject: domain.MappingStream(id), Version: 1, Position: 1, Records: records}}
	})
	body, err := json.Marshal(rule(user, source, target, 80))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		serve(b, w.handler, "POST", path("mappings"), string(body), 201)
	}
}

// BenchmarkGetMapping reads one mapping from the read model in memory.
func BenchmarkGetMapping(b *testing.B) {
	w := newWorld(b)
	user := w.user("ann")
	source, target := w.client(user, "a"), w.client(user, "b")
	one := path("mappings", w.mapping(user, source, target, 80))
	w.do("GET", one, nil).want(200)
	b.ReportAllocs()
	for b.Loop() {
		serve(b, w.handler, "GET", one, "", 200)
	}
}

// BenchmarkListMappings reads a page of fifty.
func BenchmarkListMappings(b *testing.B) {
	w := newWorld(b)
	user := w.user("ann")
	source, target := w.client(user, "a"), w.client(user, "b")
	for i := range 50 {
		w.mapping(user, source, target, 1000+i)
	}
	b.ReportAllocs()
	for b.Loop() {
		serve(b, w.handler, "GET", path("mappings"), "", 200)
	}
}
