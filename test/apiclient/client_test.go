package apiclient

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// document is what this test reads of the OpenAPI document.
type document struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]*schema }
}

type operation struct {
	OperationID string
	Parameters  []struct{ Name, In string }
	RequestBody struct{ Content content }
	Responses   map[string]struct{ Content content }
}

type content map[string]struct{ Schema *schema }

type schema struct {
	Ref        string `json:"$ref"`
	Items      *schema
	OneOf      []*schema
	Properties map[string]*schema
}

// TestTheClientIsOfTheDocument fails when the document has changed and the client
// was not generated anew. It compares what can be called and what is sent and
// read; words of the document may change without it.
func TestTheClientIsOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../httpapi/testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	client := reflect.TypeFor[*ClientWithResponses]()
	calls := map[string]reflect.Type{}
	for i := range client.NumMethod() {
		m := client.Method(i)
		if name, ok := strings.CutSuffix(m.Name, "WithResponse"); ok && !strings.HasSuffix(name, "WithBody") {
			calls[name] = m.Type
		}
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			name := camel(op.OperationID)
			call, ok := calls[name]
			if !ok {
				t.Errorf("%s %s (%s) is not in the client", method, path, op.OperationID)
				continue
			}
			delete(calls, name)
			doc.compare(t, op, call)
		}
	}
	for name := range calls {
		t.Errorf("%s is in the client and not in the document", name)
	}
	if t.Failed() {
		t.Log("write the client anew with: make generate")
	}
}

// compare compares an operation with the method that calls it.
func (d document) compare(t *testing.T, op operation, call reflect.Type) {
	var parameters, given []string
	for _, p := range op.Parameters {
		if p.In != "path" {
			parameters = append(parameters, p.Name)
		}
	}
	for i := range call.NumIn() {
		switch in := call.In(i); {
		case in.Kind() == reflect.Pointer && strings.HasSuffix(in.Elem().Name(), "Params"):
			given = slices.Collect(maps.Keys(fieldsOf(in.Elem())))
		case in.Kind() == reflect.Struct:
			d.same(t, op.OperationID+" body", op.RequestBody.Content["application/json"].Schema, in)
		}
	}
	slices.Sort(parameters)
	slices.Sort(given)
	if !slices.Equal(parameters, given) {
		t.Errorf("%s takes %v, and in the client %v", op.OperationID, parameters, given)
	}
	answer := call.Out(0).Elem()
	for status, r := range op.Responses {
		body, ok := r.Content["application/json"]
		if !ok {
			continue
		}
		field, ok := answer.FieldByName("JSON" + status)
		if !ok {
			t.Errorf("%s: the client does not read %s", op.OperationID, status)
			continue
		}
		d.same(t, op.OperationID+" "+status, body.Schema, field.Type)
	}
}

// same compares the fields of a schema with those of a type.
func (d document) same(t *testing.T, place string, s *schema, is reflect.Type) {
	for is.Kind() == reflect.Pointer || is.Kind() == reflect.Map && is.Key().Kind() == reflect.Bool { // a nullable.Nullable
		is = is.Elem()
	}
	if s != nil && s.Ref != "" {
		s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	switch {
	case s == nil:
		t.Errorf("%s is not in the document", place)
	case len(s.OneOf) > 0: // the client keeps what was sent, and reads it as the one or the other
		if _, ok := is.FieldByName("union"); !ok {
			t.Errorf("%s is one of several, and in the client %v", place, is)
		}
	case s.Items != nil && is.Kind() == reflect.Slice:
		d.same(t, place+"[]", s.Items, is.Elem())
	case is.Kind() == reflect.Struct && is != reflect.TypeFor[time.Time]():
		fields := fieldsOf(is)
		want, got := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(fields))
		if !slices.Equal(want, got) {
			t.Errorf("%s has %v, and in the client %v", place, want, got)
			return
		}
		for name, field := range fields {
			d.same(t, place+"."+name, s.Properties[name], field)
		}
	case len(s.Properties) > 0:
		t.Errorf("%s has fields, and is %v in the client", place, is)
	}
}

// fieldsOf gives the fields of a struct by the names they have in JSON.
func fieldsOf(s reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Field(i).Tag.Get("json"), ",")
		fields[name] = s.Field(i).Type
	}
	return fields
}

// camel is an operation's id as the name of a method.
func camel(id string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(id, "-") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
