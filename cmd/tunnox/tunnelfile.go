package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A file of tunnels lists those that tunnox up holds, by name:
//
//	tunnels:
//	  web:
//	    tcp: 3000
//	    port: 20005
//	  db:
//	    forward: 5433
//	    to: datacentre:5432
//
// An entry has one of the keys that say what it is, and the options of that one.

// entry is one tunnel of the file. It is compared to find what a reload changes.
type entry struct {
	kind  string            // the key that says what it is
	value string            // of that key
	more  map[string]string // the other keys
	rules publicRules       // what the keys of rules say together
	line  int
	dir   string // of the file: where relative paths begin
}

// kindKeys are the keys that say what a tunnel is, each with its options.
var kindKeys = map[string][]string{
	"http": {"host", "path", "listing", "dot_files", "inspect", "keep", "allow", "deny", "basic", "basic_file", "host_header", "strip_prefix",
		"request_headers", "response_headers"},
	"tcp":     {"port", "keep", "allow", "deny"},
	"udp":     {"port", "keep", "allow", "deny"},
	"tls":     {"host", "keep", "allow", "deny"},
	"expose":  {"uses", "expires", "encryption", "keep"},
	"forward": {"to", "protocol", "encryption", "keep"},
	"socks":   {"listen", "username", "password_file", "encryption", "keep"},
}

// same tells whether another entry asks for the same tunnel.
func (e entry) same(o entry) bool {
	return e.kind == o.kind && e.value == o.value && maps.Equal(e.more, o.more) && reflect.DeepEqual(e.rules, o.rules)
}

// spec gives the tunnel that an entry asks for.
func (e entry) spec(name string, where func() string) (wanted spec, keep bool, err error) {
	number := func(key string, most uint64) uint64 {
		if e.more[key] == "" {
			return 0
		}
		n, wrong := strconv.ParseUint(e.more[key], 10, 64)
		if wrong != nil || n > most {
			err = fmt.Errorf("%s: want a number up to %d, is %q", key, most, e.more[key])
		}
		return n
	}
	yes := func(key string) bool {
		switch e.more[key] {
		case "", "false":
			return false
		case "true":
			return true
		}
		err = fmt.Errorf("%s: want true or false, is %q", key, e.more[key])
		return false
	}
	keep = yes("keep")
	files := filesFlags{yes("listing"), yes("dot_files")}
	if err != nil {
		return wanted, false, err
	}
	switch e.kind {
	case "http":
		wanted, err = httpSpec(website{e.value, e.dir, e.more["host"], e.more["path"], files})
		if yes("inspect") && err == nil {
			err = wanted.inspected()
		}
	case "tls":
		wanted, err = tlsSpec(e.value, e.more["host"])
	case "tcp", "udp":
		port := number("port", 65535)
		if err == nil {
			wanted, err = publicSpec(e.kind, e.value, e.dir, int(port))
		}
	case "expose":
		uses := max(number("uses", 1000), 1)
		var lasts lifetime
		if text := e.more["expires"]; text != "" {
			if wrong := lasts.Set(text); wrong != nil {
				return wanted, false, fmt.Errorf("expires: %w", wrong)
			}
		}
		if err == nil {
			wanted, err = exposeSpec(e.value, e.dir, uint32(uses), lasts.seconds(), where)
		}
	case "socks":
		file := e.more["password_file"]
		if (e.more["username"] == "") != (file == "") {
			return wanted, false, errors.New("username and password_file: want both, or none of them")
		}
		if file != "" && !filepath.IsAbs(file) {
			file = filepath.Join(e.dir, file)
		}
		wanted, err = socksSpec(e.value, e.more["listen"], e.more["username"], func() (string, error) { return surroundings{}.readSecret(file) })
	case "forward":
		protocol := e.more["protocol"]
		if protocol == "" {
			protocol = "tcp"
		}
		switch {
		case e.more["to"] == "":
			return wanted, false, errors.New("to is missing: the other machine and its service, for example datacentre:5432")
		case protocol != "tcp" && protocol != "udp":
			return wanted, false, fmt.Errorf("protocol: want tcp or udp, is %q", protocol)
		}
		wanted, err = forwardSpec(protocol, e.value, e.more["to"])
	}
	if err == nil {
		wanted, err = wanted.encrypted(e.more["encryption"])
	}
	if err != nil {
		return wanted, false, err
	}
	return wanted.named(name).ruled(e.rules), keep, nil
}

// parseTunnels reads a file of tunnels. All that is wrong with it is told at once, each
// with its line.
func parseTunnels(file string, text []byte) (map[string]entry, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	r := &tunnelReader{file: file}
	all := map[string]entry{}
	if len(document.Content) > 0 {
		r.object(document.Content[0], "the file", func(key, value *yaml.Node) {
			if r.known(key, "the file", "tunnels") {
				r.object(value, "tunnels", func(name, value *yaml.Node) {
					if _, twice := all[name.Value]; twice {
						r.fault(name, "the tunnel %q stands here a second time", name.Value)
					}
					all[name.Value] = r.entry(name, value)
				})
			}
		})
	}
	if len(all) == 0 && len(r.faults) == 0 {
		r.faults = append(r.faults, fmt.Errorf("%s: it has no tunnels", file))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		if e.kind == "" {
			continue // told already
		}
		if _, _, err := e.spec(name, func() string { return "" }); err != nil {
			r.faults = append(r.faults, fmt.Errorf("%s, line %d: %s: %w", file, e.line, oneLine(name), err))
		}
	}
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return all, nil
}

type tunnelReader struct {
	file   string
	faults []error
}

func (r *tunnelReader) fault(at *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s, line %d: %s", r.file, at.Line, oneLine(fmt.Sprintf(format, args...))))
}

// object calls each for every key and value of a mapping.
func (r *tunnelReader) object(node *yaml.Node, what string, each func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		r.fault(node, "%s must be keys with values, indented under it", what)
		return
	}
	for pair := range slices.Chunk(node.Content, 2) {
		each(pair[0], pair[1])
	}
}

// known refuses a key that is none of these, with the nearest that is.
func (r *tunnelReader) known(key *yaml.Node, where string, keys ...string) bool {
	if slices.Contains(keys, key.Value) {
		return true
	}
	text := fmt.Sprintf("%s has no key %q", where, key.Value)
	if near := nearest(key.Value, keys); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	} else {
		text += "; it has " + strings.Join(keys, ", ")
	}
	r.fault(key, "%s", text)
	return false
}

func (r *tunnelReader) entry(name, node *yaml.Node) entry {
	e := entry{more: map[string]string{}, line: name.Line, dir: filepath.Dir(r.file)}
	kinds := slices.Sorted(maps.Keys(kindKeys))
	var others []*yaml.Node
	seen := map[string]bool{}
	r.object(node, fmt.Sprintf("%q", name.Value), func(key, value *yaml.Node) {
		if seen[key.Value] {
			r.fault(key, "the key %q stands in %q twice", key.Value, name.Value)
			return
		}
		seen[key.Value] = true
		if r.visitorRule(&e.rules, key, value) {
			others = append(others, key)
			return
		}
		if value.Kind != yaml.ScalarNode {
			r.fault(value, "%s must be one value", key.Value)
			return
		}
		switch {
		case kindKeys[key.Value] == nil:
			others = append(others, key)
			e.more[key.Value] = value.Value
		case e.kind != "":
			r.fault(key, "%q is %s already and cannot be %s too", name.Value, e.kind, key.Value)
		default:
			e.kind, e.value = key.Value, value.Value
		}
	})
	if e.kind == "" {
		for _, key := range others {
			if near := nearest(key.Value, kinds); near != "" {
				r.fault(key, "%q has no key %q; did you mean %q?", name.Value, key.Value, near)
				return e
			}
		}
		r.fault(name, "%q does not say what it is: want one of %s", name.Value, strings.Join(kinds, ", "))
		return e
	}
	for _, key := range others {
		r.known(key, fmt.Sprintf("%q, which is %s,", name.Value, e.kind), kindKeys[e.kind]...)
	}
	return e
}

// visitorRule reads a key that says what a tunnel lets in, or changes. It reports false for
// other keys.
func (r *tunnelReader) visitorRule(rules *publicRules, key, value *yaml.Node) bool {
	switch key.Value {
	case "allow":
		rules.Allow = r.listed(key, value)
	case "deny":
		rules.Deny = r.listed(key, value)
	case "basic":
		for _, text := range r.listed(key, value) {
			v, err := parseVisitor(text)
			if err != nil {
				r.fault(value, "%s: %v", key.Value, err)
				return true
			}
			rules.Basic = append(rules.Basic, v)
		}
	case "basic_file":
		if value.Kind != yaml.ScalarNode {
			r.fault(value, "%s must be one value", key.Value)
			return true
		}
		name := value.Value
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(r.file), name)
		}
		file, err := os.Open(name)
		if err != nil {
			r.fault(value, "%s: %v", key.Value, err)
			return true
		}
		defer file.Close()
		visitors, err := readVisitors(file)
		if err != nil {
			r.fault(value, "%s: %s: %v", key.Value, value.Value, err)
		}
		rules.Basic = append(rules.Basic, visitors...)
	case "host_header", "strip_prefix":
		if value.Kind != yaml.ScalarNode {
			r.fault(value, "%s must be one value", key.Value)
			return true
		}
		*map[string]*string{"host_header": &rules.HostHeader, "strip_prefix": &rules.StripPrefix}[key.Value] = value.Value
	case "request_headers":
		rules.RequestHeaders = r.headers(key, value)
	case "response_headers":
		rules.ResponseHeaders = r.headers(key, value)
	default:
		return false
	}
	return true
}

// listed reads one value, or a list of them.
func (r *tunnelReader) listed(key, value *yaml.Node) (all []string) {
	nodes := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		nodes = value.Content
	}
	for _, node := range nodes {
		if node.Kind != yaml.ScalarNode {
			r.fault(node, "%s must be one value or a list of them", key.Value)
			return nil
		}
		all = append(all, node.Value)
	}
	return all
}

// headers reads names with values; without a value a header is taken away.
func (r *tunnelReader) headers(key, value *yaml.Node) (all []header) {
	r.object(value, key.Value, func(name, value *yaml.Node) {
		switch {
		case value.Kind != yaml.ScalarNode:
			r.fault(value, "%s must be one value", name.Value)
		case value.Tag == "!!null":
			all = append(all, header{name.Value, ""})
		default:
			all = append(all, header{name.Value, value.Value})
		}
	})
	return all
}

// nearest gives the word that is spelled most like another, "" when none is near.
func nearest(word string, of []string) string {
	best, least := "", 3
	for _, other := range of {
		if d := distance(strings.ToLower(word), other); d < least && d < len(other) {
			best, least = other, d
		}
	}
	return best
}

// distance is how many letters must be added, taken away or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
