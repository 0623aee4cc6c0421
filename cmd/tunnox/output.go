package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// object is a JSON object as the API sent it.
type object map[string]any

func parseObject(b []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // ids stay digit for digit
	var o object
	if err := dec.Decode(&o); err != nil {
		return nil, fmt.Errorf("read the API's answer: %w", err)
	}
	return o, nil
}

// text gives a field for people; a missing field is a dash. A dot leads into a nested
// object.
func (o object) text(field string) string {
	if outer, inner, ok := strings.Cut(field, "."); ok {
		nested, _ := o[outer].(map[string]any) // nil is empty
		return object(nested).text(inner)
	}
	switch v := o[field].(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return timeText(at)
		}
		return v
	case []any:
		words, between := make([]string, len(v)), ","
		for i, word := range v {
			if member, ok := word.(map[string]any); ok {
				words[i], between = object(member).pairs(), " "
				continue
			}
			words[i] = fmt.Sprint(word)
		}
		return cmp.Or(strings.Join(words, between), "-")
	default:
		return fmt.Sprint(v)
	}
}

// pairs gives all fields as NAME=VALUE with commas between, as flags take them.
func (o object) pairs() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		all = append(all, name+"="+o.text(name))
	}
	return strings.Join(all, ",")
}

// timeText gives a time for people: the same text on every machine, in the form that
// logs have and that --as-of, --from and --to accept.
func timeText(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05Z") }

// address gives two fields as host:port.
func (o object) address(host, port string) string { return o.text(host) + ":" + o.text(port) }

// column is one column of a table.
type column struct {
	title string
	value func(object) string
}

func field(title, name string) column {
	return column{title, func(o object) string { return o.text(name) }}
}

// printTable prints one row for each object, or a sentence when there is none.
func printTable(w io.Writer, columns []column, items []json.RawMessage) error {
	people, _ := w.(*screen)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	rows := make([][]string, 0, len(items))
	for _, item := range items {
		o, err := parseObject(item)
		if err != nil {
			return err
		}
		if people != nil {
			people.forPeople(o)
		}
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = oneLine(c.value(o))
		}
		rows = append(rows, cells)
	}
	if people != nil {
		return people.table(titles, rows)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{titles}, rows...) {
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

// oneLine replaces what is not printed in text of others: control characters, which move
// the cursor, line separators, which fake a line, and the marks for the direction of
// writing, which show text in another order than it has.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// olderNames are fields that the API shows under a newer name too.
var olderNames = []string{"client_name", "client_desc"}

// printFields prints an object as "name  value" lines: the first ones as named, the
// others in the API's order.
func printFields(w io.Writer, b []byte, first []string) error {
	fields, err := parseFields(b)
	if err != nil {
		return err
	}
	fields = slices.DeleteFunc(fields, func(f jsonField) bool { return slices.Contains(olderNames, f.name) })
	rank := func(f jsonField) int {
		if i := slices.Index(first, f.name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortStableFunc(fields, func(x, y jsonField) int { return rank(x) - rank(y) })
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	people, _ := w.(*screen)
	if err := writeFields(out, people, "", fields); err != nil {
		return err
	}
	return out.Flush()
}

// jsonField is one field of an object, unchanged.
type jsonField struct {
	name  string
	value json.RawMessage
}

// parseFields gives an object's fields in their order, which a map would lose.
func parseFields(b []byte) ([]jsonField, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read the API's answer: %w", err)
	}
	var fields []jsonField
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("read the API's answer: %w", err)
		}
		f := jsonField{name: fmt.Sprint(token)}
		if err := dec.Decode(&f.value); err != nil {
			return nil, fmt.Errorf("read the API's answer: %w", err)
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func writeFields(out io.Writer, people *screen, prefix string, fields []jsonField) error {
	for _, f := range fields {
		switch {
		case strings.HasPrefix(f.name, "$"): // the schema's address, for programs
		case f.value[0] == '{':
			inner, err := parseFields(f.value)
			if err != nil {
				return err
			}
			if err := writeFields(out, people, prefix+oneLine(f.name)+".", inner); err != nil {
				return err
			}
		default:
			o, err := parseObject([]byte(`{"v":` + string(f.value) + `}`))
			if err != nil {
				return err
			}
			if people != nil {
				shown := object{f.name: o["v"]}
				people.forPeople(shown)
				o["v"] = shown[f.name]
			}
			text := oneLine(o.text("v"))
			if o["v"] == nil && isLimit(f.name) {
				text = "unlimited"
			}
			fmt.Fprintf(out, "%s%s\t%s\n", prefix, oneLine(f.name), text)
		}
	}
	return nil
}

// printJSON prints the API's JSON, each value as a document.
func printJSON(w io.Writer, b []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(b), "", "  "); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	_, err := fmt.Fprintln(w, indented.String())
	return err
}
