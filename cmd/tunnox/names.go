package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What has a name can be given by it: a name of digits only is an id.

// naming says how the resources of one kind are listed and named.
type naming struct{ id, name string }

// namings are the kinds of resources that have names.
var namings = map[string]naming{
	"user":    {"user_id", "username"},
	"client":  {"client_id", "client_name"},
	"mapping": {"mapping_id", "name"},
	"key":     {"key_id", "name"},
	"invite":  {"invite_id", "name"},
	"domain":  {"domain_id", "host"},
	"share":   {"share_id", "name"},
}

// named is one resource with its name.
type named struct {
	id   int64
	name string
}

// nameValue is the value of a flag that takes a name or an id. A name is resolved
// before the command runs.
type nameValue struct {
	kind string
	id   *int64
	text string // the name; "" when an id was given
}

// Set implements [pflag.Value].
func (v *nameValue) Set(text string) error {
	id, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil && id >= 0:
		*v.id, v.text = id, ""
	case err == nil || strings.TrimSpace(text) == "":
		return fmt.Errorf("must be the name or the id of a %s", v.kind)
	default:
		*v.id, v.text = 0, text
	}
	return nil
}

// String implements [pflag.Value].
func (v *nameValue) String() string {
	switch {
	case v.text != "":
		return v.text
	case v.id == nil || *v.id == 0:
		return ""
	}
	return strconv.FormatInt(*v.id, 10)
}

// Type implements [pflag.Value].
func (v *nameValue) Type() string { return "name" }

// nameFlag adds a flag that takes the name or the id of a resource.
func nameFlag(cmd *cobra.Command, id *int64, flag, kind, usage string) {
	nameFlagOf(cmd.Flags(), id, flag, kind, usage)
}

func nameFlagOf(flags *pflag.FlagSet, id *int64, flag, kind, usage string) {
	flags.Var(&nameValue{kind: kind, id: id}, flag, usage)
}

// Annotations of commands whose arguments are names: the kind, and whether only the
// first argument is one.
const (
	namesKind  = "names"
	namesFirst = "names_first"
)

// word is what stands for one resource in the usage of a command.
func (r *resource) word() string {
	if _, ok := namings[r.name]; ok {
		return strings.ToUpper(r.name)
	}
	return "ID"
}

// takesOne is for a command about one resource, takesSome for one about several.
func (r *resource) takesOne(cmd *cobra.Command) {
	if !r.names(cmd, true) {
		cmd.Args = oneID
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError("the name or the id of one %s is needed: %s", r.name, cmd.UseLine())
		}
		return someNames(cmd, args)
	}
}

func (r *resource) takesSome(cmd *cobra.Command) {
	cmd.Args = someIDs
	if r.names(cmd, false) {
		cmd.Args = someNames
	}
}

// names marks a command whose arguments are names of resources of this kind.
func (r *resource) names(cmd *cobra.Command, first bool) bool {
	if _, ok := namings[r.name]; !ok {
		return false
	}
	cmd.Annotations = map[string]string{namesKind: r.name}
	if first {
		cmd.Annotations[namesFirst] = "yes"
	}
	return true
}

func someNames(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError("a name or an id is needed: %s", cmd.UseLine())
	}
	for _, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if strings.TrimSpace(arg) == "" || err == nil && id <= 0 {
			return usageError("%q is neither a name nor an id, see list", arg)
		}
	}
	return nil
}

// resolve puts ids in the place of the names among a command's arguments and flags.
func (c *restClient) resolve(ctx context.Context, cmd *cobra.Command, args []string) (err error) {
	if kind := cmd.Annotations[namesKind]; kind != "" {
		for i, arg := range args {
			if _, isName := strconv.ParseInt(arg, 10, 64); isName == nil || i > 0 && cmd.Annotations[namesFirst] != "" {
				continue
			}
			id, err := c.idOf(ctx, kind, arg)
			if err != nil {
				return err
			}
			args[i] = strconv.FormatInt(id, 10)
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		v, ok := f.Value.(*nameValue)
		if !ok || v.text == "" || err != nil {
			return
		}
		if *v.id, err = c.idOf(ctx, v.kind, v.text); err != nil {
			err = fmt.Errorf("--%s: %w", f.Name, err)
			return
		}
		v.text = ""
	})
	return err
}

// idOf gives the id of the one resource with a name.
func (c *restClient) idOf(ctx context.Context, kind, name string) (int64, error) {
	all, err := c.namesOf(ctx, kind)
	if err != nil {
		return 0, err
	}
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.EqualFold} {
		var found []named
		for _, n := range all {
			if same(n.name, name) {
				found = append(found, n)
			}
		}
		switch {
		case len(found) == 1:
			return found[0].id, nil
		case len(found) > 1:
			return 0, codedError{exitRefused, fmt.Errorf("several %ss are called %q: give the id of one of them, %s [ambiguous]", kind, name, listed(found))}
		}
	}
	text := fmt.Sprintf("no %s is called %q", kind, name)
	if near := near(all, name); len(near) > 0 {
		text += "; there is " + listed(near)
	}
	return 0, codedError{exitRefused, fmt.Errorf("%s [%s_not_found]", text, kind)}
}

// namesOf lists the resources of a kind that the caller may see.
func (c *restClient) namesOf(ctx context.Context, kind string) ([]named, error) {
	if all, ok := c.found[kind]; ok {
		return all, nil
	}
	path := "/api/v1/" + kind + "s"
	if c.missing != "" { // the agent of this machine
		path = "/" + kind + "s"
	}
	p, err := c.list(ctx, path, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("look up the name of a %s: %w", kind, err)
	}
	all := []named{}
	for _, item := range p.Items {
		o, err := parseObject(item)
		if err != nil {
			return nil, err
		}
		id, ok := o[namings[kind].id].(json.Number)
		name, _ := o[namings[kind].name].(string)
		if !ok || name == "" {
			continue
		}
		if n, err := id.Int64(); err == nil {
			all = append(all, named{n, name})
		}
	}
	if c.found == nil {
		c.found = map[string][]named{}
	}
	c.found[kind] = all
	return all, nil
}

// most is how many candidates an error names.
const most = 5

// listed names candidates with their ids.
func listed(all []named) string {
	var text []string
	for i, n := range all {
		if i == most {
			text = append(text, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		text = append(text, fmt.Sprintf("%s (%d)", oneLine(n.name), n.id))
	}
	return strings.Join(text, ", ")
}

// near gives those whose names begin with a word or are spelled nearly like it, the
// nearest first.
func near(all []named, word string) (some []named) {
	word = strings.ToLower(word)
	far := func(n named) int {
		name := strings.ToLower(n.name)
		if strings.HasPrefix(name, word) || strings.HasPrefix(word, name) {
			return 0
		}
		return distance(name, word)
	}
	for _, n := range all {
		if far(n) <= 2 {
			some = append(some, n)
		}
	}
	slices.SortStableFunc(some, func(a, b named) int { return cmp.Or(far(a)-far(b), cmp.Compare(a.id, b.id)) })
	return some
}
