package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/openapi.json anew")

// TestDocumentIsTheOneReviewed keeps the API from changing unseen: whoever
// changes a route or a body sees it in the diff of the golden file.
func TestDocumentIsTheOneReviewed(t *testing.T) {
	w := newWorld(t)
	var got bytes.Buffer
	if err := json.Indent(&got, []byte(w.send(w.request("GET", "/openapi.json", nil)).want(200).Text), "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	const golden = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the OpenAPI document is not %s; look at the change and run: go test ./httpapi -run Document -update", golden)
	}
}

func TestDocumentsSaySameInEveryForm(t *testing.T) {
	w := newWorld(t)
	if got := w.send(w.request("GET", "/openapi.json", nil)).want(200); got.Body["openapi"] != "3.1.0" {
		t.Errorf("openapi.json is %v", got.Body["openapi"])
	}
	old := w.send(w.request("GET", "/openapi-3.0.json", nil)).want(200)
	if v, _ := old.Body["openapi"].(string); !strings.HasPrefix(v, "3.0.") {
		t.Errorf("openapi-3.0.json is %v", old.Body["openapi"])
	}
	if got := w.send(w.request("GET", "/openapi.yaml", nil)).want(200); !strings.Contains(got.Text, "openapi: 3.1.0") {
		t.Error("openapi.yaml is not 3.1.0")
	}
	paths := old.Body["paths"].(map[string]any)
	for _, p := range []string{"/users", "/users/{id}/quota", "/clients/{id}/rotate-credential", "/mappings/{id}/disable", "/events", "/users/{id}/history"} {
		if paths["/api/v1"+p] == nil {
			t.Errorf("the document lacks %s", p)
		}
	}
}

// TestEveryBodyHasAnExample walks the schemas: a field without an example makes
// the docs page show "string".
func TestEveryBodyHasAnExample(t *testing.T) {
	w := newWorld(t)
	doc := w.send(w.request("GET", "/openapi.json", nil)).want(200).Body
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	for name, s := range schemas {
		properties, _ := s.(map[string]any)["properties"].(map[string]any)
		for field, p := range properties {
			m := p.(map[string]any)
			nested := m["$ref"] != nil || m["type"] == "array" || m["type"] == "boolean"
			if !nested && m["examples"] == nil && !slices.Contains([]string{"data", "cause"}, field) {
				t.Errorf("%s.%s has no example", name, field)
			}
		}
	}
}
