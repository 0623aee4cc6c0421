package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const useLong = `Show the servers that this account of the machine has joined or logged in to, one
context each, or choose the one that the commands which follow are for.

A context has the identity of this machine at the server, the server's address and
fingerprint, the address of its REST API, and the login. Nothing of one context goes to
the server of another. For one command, --context NAME or TUNNOX_CONTEXT chooses
another; --state names a directory outside of all contexts.

tunnox join adds a context. With --api, NAME gets the address of its API, and is made
if there is none of that name.

--rename and --remove are for a context whose agent does not run; where it runs as a
service, uninstall that first (tunnox service uninstall). --remove deletes what this
machine has of a context, its identity too, for good. The server keeps the client, so
that its mappings can be given to another one: tunnox client delete deletes it there.`

// contextView is one line of tunnox use.
type contextView struct {
	Name     string   `json:"name"`
	Chosen   bool     `json:"chosen"`
	Servers  []string `json:"servers"`
	ClientID int64    `json:"client_id,omitempty"`
	API      string   `json:"api,omitempty"`
	Login    string   `json:"login,omitempty"` // the user who is logged in
	Running  bool     `json:"agent_running"`
	State    string   `json:"state_dir"`
	Error    string   `json:"error,omitempty"` // why it cannot be read
}

func useCommand(s surroundings) *cobra.Command {
	var api, ca, rename string
	asJSON, remove, yes := false, false, false
	cmd := &cobra.Command{Use: "use [NAME]", Short: "List the servers of this machine, or choose one", Long: useLong,
		Example: "  tunnox use\n  tunnox use work\n  tunnox use work --api https://tunnox.example.org\n  tunnox use work --rename office\n  tunnox use office --remove\n  tunnox --context home http 3000",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("want the name of one context: %s", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, noFiles
			}
			return s.contextNames(), noFiles
		}}
	cmd.Flags().StringVar(&api, "api", "", "`URL` of the REST API of that server, for commands that are given none")
	cmd.Flags().StringVar(&ca, "api-ca", "", "`file` with certificates in PEM that vouch for --api, beside those of the system")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&rename, "rename", "", "give the context another `name`")
	cmd.Flags().BoolVar(&remove, "remove", false, "forget the context, with the identity of this machine at its server")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --remove: do it without asking")
	cmd.MarkFlagsMutuallyExclusive("rename", "remove", "api")
	_ = cmd.RegisterFlagCompletionFunc("rename", cobra.FixedCompletions(nil, noFiles)) // the flag is made above
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			for _, flag := range []string{"api", "api-ca", "rename", "remove"} {
				if cmd.Flags().Changed(flag) {
					return usageError("--%s needs the NAME of the context that it is for", flag)
				}
			}
			return s.listContexts(asJSON)
		}
		switch {
		case cmd.Flags().Changed("rename"):
			return s.renameContext(args[0], rename)
		case remove:
			return s.removeContext(cmd.Context(), args[0], yes)
		}
		if ca != "" && api == "" {
			return usageError("--api-ca needs --api: it vouches for that address")
		}
		return s.use(args[0], api, ca)
	}
	return cmd
}

func (s surroundings) use(name, api, caFile string) error {
	ca, caErr := readCA(caFile)
	if caErr != nil {
		return caErr
	}
	p, err := s.contextNamed(name, "tunnox use")
	base := ""
	if api != "" {
		var fault error
		if base, fault = apiBase(api); fault != nil {
			return fault
		}
		if err != nil {
			if p, err = s.newContext(name); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	if base != "" {
		if err := p.change(func(c *contextSettings) {
			c.API, c.CA = base, ca
			if p.dir == defaultStateDir(s) {
				c.Name = p.name // otherwise its name would follow its server's
			}
		}); err != nil {
			return fmt.Errorf("keep the context: %w", err)
		}
	}
	if err := s.choose(p); err != nil {
		return err
	}
	k, err := p.read()
	if err != nil {
		return err
	}
	at := "no server"
	switch {
	case len(k.joined.Servers) > 0:
		at = strings.Join(k.joined.Servers, ", ")
	case k.api() != "":
		at = k.api()
	}
	_, err = fmt.Fprintf(s.stdout, "commands are for %s now: %s\n", p.name, oneLine(at))
	return err
}

func (s surroundings) listContexts(asJSON bool) error {
	views, err := s.contextViews()
	if err != nil {
		return err
	}
	if asJSON {
		b, err := json.Marshal(map[string]any{"items": views})
		if err != nil {
			return err
		}
		return printJSON(s.stdout, b)
	}
	if len(views) == 0 {
		_, err := io.WriteString(s.stdout, "this machine has joined no server: run tunnox join CODE, with the code of an invitation\n")
		return err
	}
	return printValues(s.stdout, []column{
		{"", func(o object) string {
			if o["chosen"] == true {
				return "*"
			}
			return ""
		}}, field("NAME", "name"), {"SERVER", func(o object) string {
			if fault := o.text("error"); fault != "-" {
				return "cannot be read: " + fault
			}
			return o.text("servers")
		}}, field("CLIENT", "client_id"), field("API", "api"), field("LOGIN", "login"),
		{"AGENT", func(o object) string {
			if o["agent_running"] == true {
				return "running"
			}
			return "-"
		}}}, views)
}

// contextViews tells of every context. The chosen one is that of commands without
// --context, whatever this one has.
func (s surroundings) contextViews() ([]contextView, error) {
	all, err := s.contexts()
	if err != nil {
		return nil, err
	}
	chosen, err := s.place("")
	if err != nil && len(all) == 0 {
		return nil, err
	}
	views := []contextView{}
	for _, p := range all {
		k, err := p.read()
		kept, loginErr := s.loginsAt(p).read()
		v := contextView{Name: p.name, Chosen: p.dir == chosen.dir, Servers: append([]string{}, k.joined.Servers...), ClientID: k.id.ClientID, API: k.api(),
			State: p.dir, Login: kept[k.api()].Username, Running: agentRuns(p.dir)}
		if err = errors.Join(err, loginErr); err != nil {
			v.Error = err.Error()
		}
		views = append(views, v)
	}
	return views, nil
}

// contextNames is for completions.
func (s surroundings) contextNames() (names []string) {
	all, err := s.contexts()
	if err != nil {
		return nil
	}
	for _, p := range all {
		names = append(names, p.name)
	}
	return names
}
