package domain

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// The parts of a mapping are [Origin], [Service] and [Options]: plain structs that
// the state, the events, the commands and the bodies of the API embed. The tags of a
// field describe it in one place. They have the names that the document of the API uses:
//
//	json                the field's name; "omitempty" makes it optional
//	doc, example        for people
//	enum                the allowed texts, separated by commas
//	minimum, maximum    of a number
//	maxLength           of a text, in characters
//	of                  the protocols that an option is for, with commas between
//	at                  the kinds of origins that it is for, in the same way
//	unset               the meaning of an optional field that is not set
//
// The domain checks values by the tags, the API documents them, and the command line
// makes its flags from them. A rule that tags cannot express is a line in the check of
// the part.

// Field is one field of a part.
type Field struct {
	Name      string // as the API spells it
	Doc       string
	Enum      []string // nil = any text
	Minimum   *int64
	Maximum   *int64
	MaxLength int      // 0 = unlimited
	Of        []string // the protocols it is for; nil = all
	At        []string // the kinds of origins it is for; nil = all
	Optional  bool
	Unset     string // what an optional field means when nobody has set it
	Type      reflect.Type
	index     []int
}

var knownFields sync.Map // reflect.Type to []Field

// Fields lists the fields of a part, or of a struct that embeds parts, in the order of
// their JSON.
func Fields(part any) []Field {
	t := reflect.TypeOf(part)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if known, ok := knownFields.Load(t); ok {
		return known.([]Field)
	}
	var fields []Field
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		field := Field{Name: name, Doc: f.Tag.Get("doc"), Minimum: bound(f.Tag.Get("minimum")), Maximum: bound(f.Tag.Get("maximum")),
			Optional: strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero"), Unset: f.Tag.Get("unset"),
			Type: f.Type, index: f.Index}
		if enum := f.Tag.Get("enum"); enum != "" {
			field.Enum = strings.Split(enum, ",")
		}
		if of := f.Tag.Get("of"); of != "" {
			field.Of = strings.Split(of, ",")
		}
		if at := f.Tag.Get("at"); at != "" {
			field.At = strings.Split(at, ",")
		}
		if most := bound(f.Tag.Get("maxLength")); most != nil {
			field.MaxLength = int(*most)
		}
		fields = append(fields, field)
	}
	knownFields.Store(t, fields)
	return fields
}

func bound(tag string) *int64 {
	if n, err := strconv.ParseInt(tag, 10, 64); err == nil {
		return &n
	}
	return nil
}

// bounds checks a part by the tags of its fields. An optional field may be unset.
func (f *faults) bounds(part any) {
	v := reflect.Indirect(reflect.ValueOf(part))
	for _, field := range Fields(part) {
		value := v.FieldByIndex(field.index)
		if field.Optional && value.IsZero() {
			continue
		}
		switch value.Kind() {
		case reflect.String:
			f.textBounds(field, value.String())
		case reflect.Int, reflect.Int32, reflect.Int64:
			f.numberBounds(field, value.Int())
		}
	}
}

func (f *faults) textBounds(field Field, s string) {
	switch n := utf8.RuneCountInString(s); {
	case field.Enum != nil && !slices.Contains(field.Enum, s):
		f.add(field.Name, "must be "+anyOf(field.Enum))
	case field.MaxLength > 0 && n > field.MaxLength:
		f.add(field.Name, fmt.Sprintf("must have up to %d characters, has %d", field.MaxLength, n))
	}
}

func (f *faults) numberBounds(field Field, n int64) {
	least, most := field.Minimum, field.Maximum
	switch {
	case least != nil && most != nil && (n < *least || n > *most):
		f.add(field.Name, fmt.Sprintf("must be %d to %d, is %d", *least, *most, n))
	case least != nil && n < *least:
		f.add(field.Name, fmt.Sprintf("must be %d or more, is %d", *least, n))
	case most != nil && n > *most:
		f.add(field.Name, fmt.Sprintf("must be %d or less, is %d", *most, n))
	}
}

// anyOf joins names for a sentence: "a, b or c".
func anyOf(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// fillUnset gives the fields that are not set the values of their tags "unset".
func fillUnset(part any) {
	v := reflect.ValueOf(part).Elem()
	for _, field := range Fields(part) {
		value := v.FieldByIndex(field.index)
		if field.Unset == "" || !value.IsZero() {
			continue
		}
		switch value.Kind() {
		case reflect.String:
			value.SetString(field.Unset)
		case reflect.Int, reflect.Int32, reflect.Int64:
			if n := bound(field.Unset); n != nil {
				value.SetInt(*n)
			}
		}
	}
}

// Patch changes fields of a value, by their names in JSON. A field that is absent or
// null in the patch keeps its value. Any other field is replaced as a whole, also a list
// or an object; an empty list or object removes all members.
type Patch map[string]json.RawMessage

// PatchOf gives the patch that makes any value of this type equal to v.
func PatchOf(value any) Patch {
	v := reflect.Indirect(reflect.ValueOf(value))
	p := Patch{}
	for _, field := range Fields(value) {
		raw, err := json.Marshal(v.FieldByIndex(field.index).Interface())
		switch {
		case err != nil: // parts hold numbers, texts, lists and maps of them
		case string(raw) != "null":
			p[field.Name] = raw
		case field.Type.Kind() == reflect.Slice:
			p[field.Name] = json.RawMessage("[]")
		default:
			p[field.Name] = json.RawMessage("{}")
		}
	}
	return p
}

// get gives what the patch has for a field. Names are compared as encoding/json
// compares them, without case; the exact one wins.
func (p Patch) get(name string) (json.RawMessage, bool) {
	raw, ok := p[name]
	if !ok {
		for key, other := range p {
			if strings.EqualFold(key, name) {
				raw, ok = other, true
			}
		}
	}
	return raw, ok && string(raw) != "null"
}

// patch changes a struct in place; value is a pointer to it.
func (f *faults) patch(to any, p Patch) {
	v := reflect.ValueOf(to).Elem()
	for _, field := range Fields(to) {
		raw, ok := p.get(field.Name)
		if !ok {
			continue
		}
		// Decode into a new value: the old one may share memory with the state.
		next := reflect.New(field.Type)
		if err := json.Unmarshal(raw, next.Interface()); err != nil {
			f.add(field.Name, "must be "+kindName(field.Type))
			continue
		}
		if empty(next.Elem()) {
			next.Elem().SetZero()
		}
		v.FieldByIndex(field.index).Set(next.Elem())
	}
}

// empty reports whether a value is a list or an object with nothing in it.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Pointer:
		return !v.IsNil() && v.Elem().IsZero()
	}
	return false
}

// fixedBy refuses a patch that gives another value to a field that never changes.
func (f *faults) fixedBy(p Patch, is any, names ...string) {
	v, fields := reflect.Indirect(reflect.ValueOf(is)), Fields(is)
	for _, name := range names {
		raw, ok := p.get(name)
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if !ok || i < 0 {
			continue
		}
		field := fields[i]
		value, given := v.FieldByIndex(field.index), reflect.New(field.Type)
		if err := json.Unmarshal(raw, given.Interface()); err != nil || !reflect.DeepEqual(given.Elem().Interface(), value.Interface()) {
			f.add(field.Name, fmt.Sprintf("cannot be changed, is %v", value))
		}
	}
}

func kindName(t reflect.Type) string {
	if t == reflect.TypeFor[PortRange]() {
		return "a port, or a text FROM-TO"
	}
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}
