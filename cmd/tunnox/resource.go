package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// resource is the common part of the commands for users, clients, mappings and so on.
type resource struct {
	api     *apiFlags
	name    string // the name of the command
	path    string // below the API's base, for example /api/v1/users
	columns []column
	first   []string // the fields that are shown first, in order
}

// do runs a command that calls the API.
func (a *apiFlags) do(run func(ctx context.Context, c *restClient, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
	return a.open(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		if c.key == "" {
			if err := a.loginsAt(c.place).use(ctx, c); err != nil {
				return err
			}
		}
		if err := c.resolve(ctx, c.cmd, args); err != nil {
			return err
		}
		return run(ctx, c, out, args)
	})
}

// open is do for a command that needs no key, such as a login.
func (a *apiFlags) open(run func(ctx context.Context, c *restClient, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		c.asking, c.cmd = askingOf(cmd.Flags()), cmd
		if a.asks(cmd.Flags()) {
			c.confirm = a.sure
		}
		return a.planned(run(cmd.Context(), c, a.stdout, args))
	}
}

// planned prints the answer to a dry run, which is not a failure.
func (a *apiFlags) planned(err error) error {
	if p, ok := errors.AsType[*plan](err); ok {
		return p.print(a.stdout, a.json)
	}
	return err
}

// print prints one resource: the API's JSON, or its fields.
func (r *resource) print(out io.Writer, b []byte) error {
	if r.api.json {
		return printJSON(out, b)
	}
	return printFields(out, b, r.first)
}

// printList prints a list: the API's JSON with all pages joined, or a table.
func (a *apiFlags) printList(out io.Writer, columns []column, p page) error {
	if !a.json {
		return printTable(out, columns, p.Items)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return printJSON(out, b)
}

// list lists all resources, or those of one owner: of a user, of a client.
func (r *resource) list(owners ...string) *cobra.Command {
	var after int64
	ids := make([]int64, len(owners))
	cmd := &cobra.Command{Use: "list", Short: "List " + r.name + "s", Args: cobra.NoArgs}
	limit := limitFlag(cmd.Flags())
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		path := r.path
		for i, owner := range owners {
			if ids[i] != 0 {
				path = fmt.Sprintf("/api/v1/%ss/%d/%ss", owner, ids[i], r.name)
			}
		}
		p, err := c.list(ctx, path+filters(cmd.Flags()), after, int(*limit))
		if err != nil {
			return err
		}
		return r.api.printList(out, r.columns, p)
	})
	reads(cmd)
	cmd.Flags().Int64Var(&after, "after", 0, "begin after this `id`, to continue a limited list")
	for i, owner := range owners {
		nameFlag(cmd, &ids[i], owner, owner, "only those of this `"+owner+"`, by name or id")
	}
	if len(owners) > 1 {
		cmd.MarkFlagsMutuallyExclusive(owners...)
	}
	return cmd
}

// filterFlag marks a flag of a list as a filter. Its value is the API's name of the
// filter.
const filterFlag = "filter"

// filtering adds filters to a list.
func filtering(list *cobra.Command, names ...string) *cobra.Command {
	for _, name := range names {
		list.Flags().String(name, "", "only those with this `"+name+"`")
		mark(list, name, name)
	}
	return list
}

// ofOwner adds a filter for the owner to a list.
func ofOwner(list *cobra.Command) *cobra.Command {
	nameFlag(list, new(int64), "user", "user", "only those of this `user`, by name or id")
	mark(list, "user", "user_id")
	return list
}

func mark(list *cobra.Command, flag, parameter string) {
	list.Flags().Lookup(flag).Annotations = map[string][]string{filterFlag: {parameter}}
}

// filters gives the query of the given filters.
func filters(flags *pflag.FlagSet) string {
	query := url.Values{}
	flags.Visit(func(f *pflag.Flag) {
		if parameter := f.Annotations[filterFlag]; len(parameter) == 1 {
			query.Set(parameter[0], f.Value.String())
		}
	})
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

func (r *resource) show() *cobra.Command {
	cmd := &cobra.Command{Use: "show " + r.word(), Short: "Show one " + r.name,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			b, err := c.call(ctx, http.MethodGet, r.path+"/"+args[0], nil)
			if err != nil {
				return err
			}
			return r.print(out, b)
		})}
	r.takesOne(cmd)
	reads(cmd)
	return cmd
}

func (r *resource) history() *cobra.Command {
	cmd := &cobra.Command{Use: "history " + r.word(), Short: "Show the events that made a " + r.name,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			p, err := c.list(ctx, r.path+"/"+args[0]+"/history", 0, 0)
			if err != nil {
				return err
			}
			return r.api.printList(out, eventColumns, p)
		})}
	r.takesOne(cmd)
	return cmd
}

func (r *resource) remove() *cobra.Command {
	cmd := &cobra.Command{Use: "delete " + r.word() + "...", Aliases: []string{"rm"}, Short: "Delete " + r.name + "s",
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			for _, id := range args {
				_, err := c.call(ctx, http.MethodDelete, r.path+"/"+id, nil)
				if errors.Is(err, errUnsure) {
					return err
				}
				if err := r.api.planned(err); err != nil {
					return fmt.Errorf("delete %s %s: %w", r.name, id, err)
				}
				if err == nil && !r.api.json {
					fmt.Fprintf(out, "deleted %s %s\n", r.name, id)
				}
			}
			return nil
		})}
	r.takesSome(cmd)
	changesOne(cmd)
	ends(cmd)
	return cmd
}

// revoke is remove for keys and codes, which people revoke.
func (r *resource) revoke() *cobra.Command {
	cmd := r.remove()
	cmd.Use, cmd.Aliases, cmd.Short = "revoke "+r.word()+"...", []string{"delete", "rm"}, "Revoke "+r.name+"s"
	return cmd
}

// act is a command that changes one resource with one request, and prints the answer.
func (r *resource) act(use, short, method, suffix string, body func(*pflag.FlagSet) (any, error)) *cobra.Command {
	cmd := &cobra.Command{Use: strings.Replace(use, "ID", r.word(), 1), Short: short}
	r.takesOne(cmd)
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		var content any
		if body != nil {
			var err error
			if content, err = body(cmd.Flags()); err != nil {
				return err
			}
		}
		b, err := c.call(ctx, method, r.path+"/"+args[0]+suffix, content)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	changesOne(cmd)
	return cmd
}

// switches are the two commands that disable and enable a resource.
func (r *resource) switches(enable, disable string) []*cobra.Command {
	return []*cobra.Command{
		r.act("enable ID", enable, http.MethodPost, "/enable", nil),
		r.act("disable ID", disable, http.MethodPost, "/disable", nil),
	}
}

// oneID checks an id before the request, so that the path cannot contain anything else.
func oneID(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("one id is needed: %s", cmd.UseLine())
	}
	return someIDs(cmd, args)
}

func someIDs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError("an id is needed: %s", cmd.UseLine())
	}
	for _, arg := range args {
		if id, err := strconv.ParseInt(arg, 10, 64); err != nil || id <= 0 {
			return usageError("%q is not an id; ids are numbers, see list", arg)
		}
	}
	return nil
}
