package domain

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEveryAggregateHasItsKind: what this package folds, and every category it names,
// is in the table of kinds, once.
func TestEveryAggregateHasItsKind(t *testing.T) {
	aggregates, categories := declared(t)
	if len(aggregates) < 10 || len(categories) < 10 {
		t.Fatalf("found %v and %v in the source; there are more", aggregates, categories)
	}
	var states, names []string
	for _, k := range Kinds() {
		states, names = append(states, reflect.TypeOf(k.New()).Elem().Name()), append(names, k.Category)
		if a := NewAggregate(streamID(k.Category, 7)); a == nil || reflect.TypeOf(a) != reflect.TypeOf(k.New()) || a.Exists() {
			t.Errorf("a stream of category %q begins as a %T", k.Category, a)
		}
		if id, err := ParseStreamID(string(streamID(k.Category, 7))); err != nil || id.Number() != 7 {
			t.Errorf("the streams of %q have no name: %q, %v", k.Category, id, err)
		}
	}
	slices.Sort(states)
	slices.Sort(names)
	if !slices.Equal(states, aggregates) {
		t.Errorf("the table of kinds has the aggregates %v; there are %v", states, aggregates)
	}
	if !slices.Equal(names, categories) {
		t.Errorf("the table of kinds has the categories %v; there are %v", names, categories)
	}
}

// declared reads the aggregates (what has a Clone that gives an Aggregate) and the
// categories of the source: a table cannot say what it has forgotten.
func declared(t *testing.T) (aggregates, categories []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if star, ok := receiver(d).(*ast.StarExpr); ok && d.Name.Name == "Clone" {
					aggregates = append(aggregates, star.X.(*ast.Ident).Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if ok && d.Tok == token.CONST && strings.HasPrefix(v.Names[0].Name, "Category") {
						categories = append(categories, strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`))
					}
				}
			}
		}
	}
	slices.Sort(aggregates)
	slices.Sort(categories)
	return aggregates, categories
}

func receiver(d *ast.FuncDecl) ast.Expr {
	if d.Recv == nil {
		return nil
	}
	return d.Recv.List[0].Type
}

// TestEveryTextSaysWhoMayReadIt: every field of every event that can hold what somebody
// wrote, or a hash, is personal, secret or open; and the table names no others.
func TestEveryTextSaysWhoMayReadIt(t *testing.T) {
	for _, k := range Kinds() {
		open := map[string]bool{} // to whether an event has it
		for _, field := range k.Open {
			open[field] = false
		}
		for name, e := range published {
			if category, _, _ := strings.Cut(name, "_"); category != k.Category {
				continue
			}
			var text []string
			texts(reflect.TypeOf(e), &text)
			for _, field := range text {
				_, isOpen := open[field]
				closed := slices.Contains(PersonalFields(name), field) || slices.Contains(SecretFields(name), field)
				if closed {
					continue
				}
				if open[field] = true; !isOpen {
					t.Errorf("%s has the field %q: say in kind.go whether it is personal, secret or open", name, field)
				}
			}
			for _, field := range slices.Concat(PersonalFields(name), SecretFields(name)) {
				if !slices.Contains(text, field) {
					t.Errorf("kind.go names the field %q of %s, which has none of text", field, name)
				}
			}
		}
		for field, has := range open {
			if !has {
				t.Errorf("kind.go says that %q of a %s is open; no event has it", field, k.Category)
			}
		}
		for _, fields := range slices.Concat(k.Personal, k.Secret) {
			if !strings.HasPrefix(fields.Event, k.Category+"_") || published[fields.Event] == nil {
				t.Errorf("the kind %s speaks of %s, which is no event of it", k.Category, fields.Event)
			}
		}
	}
}

// texts lists the JSON names of what a type holds in strings and bytes, however deep.
func texts(t reflect.Type, into *[]string) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || len(f.Index) > 1 && f.Tag.Get("json") == "" {
			continue
		}
		of := f.Type
		for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
			if of = of.Elem(); of.Kind() == reflect.Uint8 {
				break
			}
		}
		switch of.Kind() {
		case reflect.String, reflect.Uint8:
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			*into = append(*into, name)
		case reflect.Struct:
			if of.PkgPath() == reflect.TypeFor[Kind]().PkgPath() {
				var inner []string
				if texts(of, &inner); len(inner) > 0 { // it is shown or hidden as a whole
					name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
					*into = append(*into, name)
				}
			}
		}
	}
}
