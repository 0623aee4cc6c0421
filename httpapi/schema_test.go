package httpapi_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/httpapi"
)

// schemaFuzz is how long TestEveryOperationWithInputOfItsSchema goes on. make
// test-long and make fuzz let it go on for a minute.
var schemaFuzz = flag.Duration("schemafuzz", 10*time.Second, "how long to send random input of the schemas")

// document is what the fuzzer reads of the OpenAPI document.
type document struct {
	Paths      map[string]map[string]*documentedOperation
	Components struct{ Schemas map[string]map[string]any }
}

type documentedOperation struct {
	OperationID string
	Parameters  []struct {
		Name, In string
		Schema   map[string]any
	}
	RequestBody *struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]struct {
		Content map[string]json.RawMessage
	}
	method, path string
}

// imagination draws values for schemas: mostly right ones, so that they get past
// the checks of form, and some that are right nowhere.
type imagination struct {
	*rand.Rand
	doc *document
	ids []int64 // that exist
}

// strange are values that have hurt somebody.
var strange = []any{nil, "", "\x00", "a\u202eb", "%s%n", "' OR 1=1 --", strings.Repeat("A", 5000), -1, 0, 1e308, int64(1) << 62, true,
	[]any{}, map[string]any{}, "9007199254740993", "../../etc/passwd", "http://169.254.169.254/", "{{7*7}}", "NaN", -9.5}

func (im *imagination) value(schema map[string]any, depth int) any {
	if im.IntN(14) == 0 {
		return strange[im.IntN(len(strange))]
	}
	if ref, ok := schema["$ref"].(string); ok {
		return im.value(im.doc.Components.Schemas[ref[strings.LastIndexByte(ref, '/')+1:]], depth)
	}
	if enum, ok := schema["enum"].([]any); ok {
		return enum[im.IntN(len(enum))]
	}
	kind := schema["type"]
	if kinds, ok := kind.([]any); ok {
		kind = kinds[im.IntN(len(kinds))]
	}
	switch kind {
	case "integer", "number":
		return im.number(schema)
	case "boolean":
		return im.IntN(2) == 0
	case "null":
		return nil
	case "array":
		items, _ := schema["items"].(map[string]any)
		list := []any{}
		for range im.IntN(4) {
			list = append(list, im.value(items, depth+1))
		}
		return list
	case "object":
		object := map[string]any{}
		required, _ := schema["required"].([]any)
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			if (slices.Contains(required, any(name)) || im.IntN(2) == 0) && im.IntN(30) > 0 && depth < 6 {
				object[name] = im.value(property.(map[string]any), depth+1)
			}
		}
		return object
	}
	return im.text(schema)
}

func (im *imagination) number(schema map[string]any) any {
	least, _ := schema["minimum"].(float64)
	most, bounded := schema["maximum"].(float64)
	switch im.IntN(4) {
	case 0:
		return im.ids[im.IntN(len(im.ids))]
	case 1:
		if bounded {
			return int64(most) + int64(im.IntN(2))
		}
	case 2:
		return int64(least) - int64(im.IntN(2))
	}
	return int64(least) + im.Int64N(1000)
}

func (im *imagination) text(schema map[string]any) string {
	if examples, ok := schema["examples"].([]any); ok && im.IntN(2) == 0 {
		if text, ok := examples[0].(string); ok {
			return text
		}
	}
	most, ok := schema["maxLength"].(float64)
	if !ok || most > 300 {
		most = 300
	}
	const letters = "abcXYZ019 .-_@:/,ä€😀\n\"'\\<>&%"
	runes := []rune(letters)
	var b strings.Builder
	for range im.IntN(int(most) + 2) {
		b.WriteRune(runes[im.IntN(len(runes))])
		if im.IntN(12) == 0 {
			break
		}
	}
	return b.String()
}

// request makes a request of an operation.
func (im *imagination) request(op *documentedOperation) (target string, header map[string]string, body []byte) {
	target, header = op.path, map[string]string{}
	query := url.Values{}
	for _, p := range op.Parameters {
		text := fmt.Sprint(im.value(p.Schema, 0))
		switch p.In {
		case "path":
			target = strings.Replace(target, "{"+p.Name+"}", url.PathEscape(text), 1)
		case "query":
			if im.IntN(3) == 0 {
				query.Set(p.Name, text)
			}
		case "header":
			if im.IntN(3) == 0 {
				header[p.Name] = strings.Map(func(r rune) rune {
					if r < ' ' || r == 0x7f {
						return -1
					}
					return r
				}, text)
			}
		}
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	if op.RequestBody != nil {
		for _, content := range op.RequestBody.Content {
			body, _ = json.Marshal(im.value(content.Schema, 0)) // strange values are all JSON
		}
	}
	return target, header, body
}

// TestEveryOperationWithInputOfItsSchema sends every operation of the document
// input that its schemas describe, nearly, for a while. Whatever it is, the
// answer has a status the document names and is never our failure, and the
// process has not grown at the end.
func TestEveryOperationWithInputOfItsSchema(t *testing.T) {
	w := newWorld(t, func(c *httpapi.Config) { c.WaitTimeout = time.Millisecond })
	text, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var operations []*documentedOperation
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			operations = append(operations, op)
		}
	}
	slices.SortFunc(operations, func(a, b *documentedOperation) int { return strings.Compare(a.OperationID, b.OperationID) })
	seed := uint64(time.Now().UnixNano())
	im := &imagination{Rand: rand.New(rand.NewPCG(seed, seed)), doc: &doc, ids: []int64{1}}
	w.populate(im)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began, sent, statuses := time.Now(), 0, map[int]int{}
	for time.Since(began) < *schemaFuzz {
		if sent%2000 == 1999 { // what a fuzzer deletes is gone; a log without end would be what grows
			w = newWorld(t, func(c *httpapi.Config) { c.WaitTimeout = time.Millisecond })
			w.populate(im)
		}
		for _, op := range operations {
			target, header, body := im.request(op)
			r := httptest.NewRequest(op.method, "/", strings.NewReader(string(body)))
			u, err := url.Parse(target)
			if err != nil {
				continue
			}
			r.URL = u
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+apiKey)
			for name, value := range header {
				r.Header.Set(name, value)
			}
			got := w.send(r)
			sent++
			statuses[got.Status]++
			code, _ := got.Body["code"].(string)
			if got.Status >= 500 && code != "read_model_behind" && code != "audit_unavailable" {
				t.Fatalf("seed %d: %s %s with %s %v: %d %s", seed, op.method, target, body, header, got.Status, got.Text)
			}
			if got.Status == 307 {
				continue // the router's, for a path that names another one: "//", "/../"
			}
			if _, documented := op.Responses[fmt.Sprint(got.Status)]; !documented && got.Status != 404 && got.Status != 400 && op.Responses["default"].Content == nil {
				t.Errorf("%s answers %d, which the document does not name: %s", op.OperationID, got.Status, got.Text)
			}
		}
	}
	runtime.GC()
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	t.Logf("%d requests to %d operations, statuses %v, heap %d MB", sent, len(operations), statuses, after.HeapAlloc>>20)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 256<<20 {
		t.Errorf("the heap has grown by %d MB", grown>>20)
	}
}

// populate makes some of everything, and remembers the ids.
func (w *world) populate(im *imagination) {
	w.t.Helper()
	for i := range 3 {
		u := w.user(fmt.Sprint("user", i))
		c := w.client(u, "c")
		im.ids = append(im.ids, u, c, w.mapping(u, c, c, 80))
	}
}
