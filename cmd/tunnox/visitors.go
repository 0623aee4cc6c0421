package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
)

// visitor is one username with its password, as the API takes it.
type visitor struct {
	Username string `json:"username"`
	Password string `json:"password,omitempty"`
}

// parseVisitor reads USER:PASSWORD. The username has no colon, the password may.
func parseVisitor(text string) (visitor, error) {
	name, password, ok := strings.Cut(text, ":")
	if !ok || name == "" || password == "" {
		return visitor{}, fmt.Errorf("want USER:PASSWORD") // what was given may be a password
	}
	return visitor{name, password}, nil
}

// readVisitors reads a line USER:PASSWORD for each visitor. Empty lines are passed over,
// and those that begin with #.
func readVisitors(from io.Reader) (all []visitor, err error) {
	text, err := io.ReadAll(io.LimitReader(from, 64<<10))
	if err != nil {
		return nil, err
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		text := strings.TrimRight(string(line), "\r")
		if text == "" || text[0] == '#' {
			continue
		}
		v, err := parseVisitor(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("it has no line USER:PASSWORD")
	}
	return all, nil
}

// visitors are those that the flags of a command name.
type visitors struct {
	given []visitor
	fault error // of a flag; cobra would repeat what was given, which may be a password
}

func (v *visitors) all() ([]visitor, error) {
	if v.fault != nil {
		return nil, usageError("%v", v.fault)
	}
	return v.given, nil
}

// visitorsFlag is the value of a flag that names visitors: one each time it is given, or
// a file of them.
type visitorsFlag struct {
	name string
	into *visitors
	in   func() io.Reader // standard input; nil: the flag takes no file
}

// visitorFlags adds the two flags to a command. Everybody on a machine can see arguments,
// so a password may stand in a file instead.
func visitorFlags(cmd *cobra.Command, name, help string) *visitors {
	into := &visitors{}
	cmd.Flags().Var(&visitorsFlag{name: name, into: into}, name, help+", `user:password`; may be given several times. Others on this machine can see it: see --"+name+"-file")
	cmd.Flags().Var(&visitorsFlag{name: name + "-file", into: into, in: cmd.InOrStdin}, name+"-file", "`file` with a line user:password for each (- = standard input)")
	return into
}

// Set implements [pflag.Value].
func (f *visitorsFlag) Set(text string) error {
	var more []visitor
	var err error
	switch {
	case f.in != nil:
		more, err = f.read(text)
	case text == "":
		f.into.given = []visitor{} // nobody needs a password
	default:
		more = make([]visitor, 1)
		more[0], err = parseVisitor(text)
	}
	if err != nil {
		f.into.fault = fmt.Errorf("--%s: %w", f.name, err)
	}
	f.into.given = append(f.into.given, more...)
	return nil
}

func (f *visitorsFlag) read(name string) ([]visitor, error) {
	if name == "-" {
		return readVisitors(f.in())
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readVisitors(file)
}

// String implements [pflag.Value]. It shows no password.
func (f *visitorsFlag) String() string { return "" }

// Type implements [pflag.Value].
func (f *visitorsFlag) Type() string { return "visitors" }

// pairsFlag is the value of a flag that is given once for each NAME=VALUE. A value may
// have commas in it, as those of headers often do.
type pairsFlag map[string]string

// Set implements [pflag.Value].
func (f pairsFlag) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok && text != "" {
		return fmt.Errorf("want NAME=VALUE")
	}
	if text != "" {
		f[name] = value
	}
	return nil
}

// String implements [pflag.Value].
func (f pairsFlag) String() string { return "" }

// Type implements [pflag.Value].
func (f pairsFlag) Type() string { return "pairs" }

// isVisitors reports whether a field is a list of visitors.
func isVisitors(field domain.Field) bool {
	return field.Type == reflect.TypeFor[[]domain.VisitorAccess]()
}

// publicRules are what a tunnel lets in, and changes of requests and answers.
type publicRules struct {
	Basic           []visitor
	Allow, Deny     []string
	HostHeader      string
	StripPrefix     string
	RequestHeaders  []header
	ResponseHeaders []header
}

// header is one to be set or, without a value, taken away.
type header struct{ name, value string }

// parseHeader reads "Name: value", or "Name:" for one that is taken away, as curl does.
func parseHeader(text string) (header, error) {
	name, value, ok := strings.Cut(text, ":")
	if !ok || name == "" {
		return header{}, usageError("%q is no header: want \"Name: value\" to set it, or \"Name:\" to take it away", text)
	}
	return header{name, strings.TrimSpace(value)}, nil
}

// into adds the rules to the parts of a mapping.
func (r publicRules) into(parts map[string]any) {
	access := map[string]any{}
	if len(r.Allow) > 0 {
		access["allow"] = r.Allow
	}
	if len(r.Deny) > 0 {
		access["deny"] = r.Deny
	}
	if len(r.Basic) > 0 {
		access["basic"] = r.Basic
	}
	changes := map[string]any{}
	for name, value := range map[string]string{"host_header": r.HostHeader, "strip_prefix": r.StripPrefix} {
		if value != "" {
			changes[name] = value
		}
	}
	for name, headers := range map[string][]header{"request_headers": r.RequestHeaders, "response_headers": r.ResponseHeaders} {
		set, remove := map[string]string{}, []string{}
		for _, h := range headers {
			if h.value == "" {
				remove = append(remove, h.name)
			} else {
				set[h.name] = h.value
			}
		}
		of := map[string]any{}
		if len(set) > 0 {
			of["set"] = set
		}
		if len(remove) > 0 {
			of["remove"] = remove
		}
		if len(of) > 0 {
			changes[name] = of
		}
	}
	for name, of := range map[string]map[string]any{"access": access, "http": changes} {
		if len(of) > 0 {
			parts[name] = of
		}
	}
}

// ruleFlags adds the flags for rules to a command of a public tunnel; read gives what
// they say when they have been parsed.
func ruleFlags(cmd *cobra.Command, http bool) (read func() (publicRules, error)) {
	var r publicRules
	var request, response []string
	basic := &visitors{}
	flags := cmd.Flags()
	flags.StringSliceVar(&r.Allow, "allow", nil, "`networks` or addresses that visitors may come from (default: all)")
	flags.StringSliceVar(&r.Deny, "deny", nil, "`networks` or addresses that visitors may not come from")
	if http {
		basic = visitorFlags(cmd, "basic", "a username and password that visitors must have one of")
		flags.StringVar(&r.HostHeader, "host-header", "", "`host` that the service sees as Host (default: the visitor's)")
		flags.StringVar(&r.StripPrefix, "strip-prefix", "", "`path` that is taken off the beginning of each request's path")
		flags.StringArrayVar(&request, "request-header", nil, "`header` to set for the service, \"Name: value\", or to take away, \"Name:\"; may be given several times")
		flags.StringArrayVar(&response, "response-header", nil, "`header` to set for visitors, or to take away, in the same way")
	}
	return func() (publicRules, error) {
		var err error
		if r.Basic, err = basic.all(); err != nil {
			return r, err
		}
		r.RequestHeaders, r.ResponseHeaders = nil, nil
		for _, of := range []struct {
			texts []string
			into  *[]header
		}{{request, &r.RequestHeaders}, {response, &r.ResponseHeaders}} {
			for _, text := range of.texts {
				h, err := parseHeader(text)
				if err != nil {
					return r, err
				}
				*of.into = append(*of.into, h)
			}
		}
		return r, nil
	}
}

var (
	_ pflag.Value = (*visitorsFlag)(nil)
	_ pflag.Value = (pairsFlag)(nil)
)
