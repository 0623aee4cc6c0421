package domain

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// Every resource that a quota can take is a row of the table. A command that takes one
// without a row would end the process.
func TestEveryResourceIsCounted(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "quota.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != "Resource" {
			return true
		}
		for _, value := range spec.Values {
			name, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			row, ok := counted[Resource(name)]
			if !ok {
				t.Errorf("the resource %s has no row", name)
				continue
			}
			q := &Quota{Mappings: map[int64]HeldMapping{7: {}}}
			before := row.held(q)
			row.take(q, QuotaTaken{Resources: []Resource{Resource(name)}, ID: 8})
			if name == string(ResourceActiveMapping) {
				row.take(q, QuotaTaken{Resources: []Resource{Resource(name)}, ID: 7})
			}
			copied := q.Clone().(*Quota)
			if row.held(q) != before+1 {
				t.Errorf("%s: %d are held after one more than %d was taken", name, row.held(q), before)
			}
			row.giveBack(q, 8)
			row.giveBack(q, 7)
			if row.held(copied) != before+1 {
				t.Errorf("%s: a copy changed with its original", name)
			}
			if row.what == "" || row.code == "" {
				t.Errorf("%s: a refusal would not say what there is too much of", name)
			}
		}
		return true
	})
	if seen != len(counted) {
		t.Errorf("%d resources and %d rows", seen, len(counted))
	}
}
