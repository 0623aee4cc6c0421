package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
)

// localCommands are the commands that control the agent that runs on this machine.
func localCommands(s surroundings) []*cobra.Command {
	f := &localFlags{surroundings: s}
	mappings := &cobra.Command{Use: "mapping", Short: "Create, list and delete mappings from or to the running agent"}
	mappings.AddCommand(f.listMappings(), f.createMapping(), f.deleteMapping())
	cmds := []*cobra.Command{f.status(), mappings, f.redeem(), f.clients(), f.verify()}
	for _, cmd := range cmds {
		flags := cmd.PersistentFlags()
		flags.StringVar(&f.state, "state", "", "`directory` with which the agent was started (environment: TUNNOX_STATE)")
		flags.Int64Var(&f.clientID, "client-id", 0, "`id` of the client, if several agents run")
		flags.BoolVar(&f.json, "json", false, "print JSON")
		flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
	}
	return cmds
}

// do runs a command with a client of the running agent. The agent's answers have the
// API's form.
func (f *localFlags) do(run func(ctx context.Context, c *restClient, r *resource, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := f.client()
		if err != nil {
			return err
		}
		c.cmd = cmd
		if err := c.resolve(cmd.Context(), cmd, args); err != nil {
			return err
		}
		return run(cmd.Context(), c, &resource{api: &apiFlags{surroundings: f.surroundings, json: f.json}, first: mappingFields}, args)
	}
}

func (f *localFlags) status() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the sessions and listeners of the running agent", Args: cobra.NoArgs,
		Long: "Show the state of the agent that runs on this machine. The status is 0 when it is connected and every\nlistener is open, and 1 when not.",
		RunE: f.do(func(ctx context.Context, c *restClient, r *resource, _ []string) error {
			b, err := c.call(ctx, http.MethodGet, "/status", nil)
			if err != nil {
				return err
			}
			var s struct {
				ClientID  int64             `json:"client_id"`
				Version   string            `json:"version"`
				Online    bool              `json:"online"`
				Sessions  []json.RawMessage `json:"sessions"`
				Listeners []struct {
					Error string `json:"error"`
				} `json:"listeners"`
				Transports []agent.TransportStatus `json:"transports"`
				Fenced     *agent.Fence            `json:"fenced"`
			}
			var listeners struct {
				Items []json.RawMessage `json:"listeners"`
			}
			if err := errors.Join(json.Unmarshal(b, &s), json.Unmarshal(b, &listeners)); err != nil {
				return fmt.Errorf("read the agent's answer: %w", err)
			}
			if r.api.json {
				err = printJSON(f.stdout, b)
			} else {
				none := ""
				if len(listeners.Items) == 0 {
					none = (&knowledge{}).listenersMissing(ctx, c)
				}
				err = printAgent(f.stdout, s.ClientID, s.Version, s.Sessions, s.Transports, listeners.Items, none)
			}
			if err != nil {
				return err
			}
			if s.Fenced != nil {
				return fmt.Errorf("another agent has this identity: %s\n  this agent tries again at %s; its log says how to get an identity of its own",
					oneLine(s.Fenced.By), timeText(s.Fenced.Until))
			}
			if !s.Online {
				return errors.New("the agent is not connected: its log says why")
			}
			for _, l := range s.Listeners {
				if l.Error != "" {
					return errors.New("not every listener is open")
				}
			}
			return nil
		})}
}

func printAgent(out io.Writer, clientID int64, version string, sessions []json.RawMessage, transports []agent.TransportStatus, listeners []json.RawMessage, none string) error {
	fmt.Fprintf(out, "client   %d\nversion  %s\n\n", clientID, oneLine(version))
	if err := printTable(out, []column{field("NODE", "node"), field("SESSION", "session"), field("TRANSPORT", "transport"), field("ROUND TRIP MS", "round_trip_ms"), field("SINCE", "since"), field("LEAVING", "leaving")}, sessions); err != nil {
		return err
	}
	for _, t := range transports {
		if t.Error != "" {
			fmt.Fprintf(out, "no session over %s at %s: %s\n", oneLine(t.Transport), timeText(t.At), oneLine(t.Error))
		}
	}
	if len(listeners) == 0 {
		_, err := fmt.Fprintf(out, "\n%s\n", none)
		return err
	}
	fmt.Fprintln(out)
	return printTable(out, []column{field("MAPPING", "mapping_id"), field("LISTENER", "address"), field("CONNECTIONS", "connections"),
		{"STATE", func(o object) string {
			if fault := o.text("error"); fault != "-" {
				return fault
			}
			return "open"
		}}}, listeners)
}

func (f *localFlags) listMappings() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the mappings from or to the agent", Args: cobra.NoArgs,
		RunE: f.do(func(ctx context.Context, c *restClient, r *resource, _ []string) error {
			p, err := c.list(ctx, "/mappings", 0, 0)
			if err != nil {
				return err
			}
			return r.api.printList(f.stdout, mappingColumns, p)
		})}
}

func (f *localFlags) createMapping() *cobra.Command {
	var source, target int64
	var protocol, name, listen, service string
	cmd := &cobra.Command{
		Use:   "create --listen [HOST:]PORT --target CLIENT --service HOST:PORT",
		Short: "Create a mapping from or to this agent",
		Long: `Create a mapping that this agent is an end of. With --target it listens here, and
the other client dials the service; with --source it is the other way round. The
other client must be one of the same user.`,
		Example: "  tunnox agent mapping create --listen 5433 --target 600000001 --service 127.0.0.1:5432",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = f.do(func(ctx context.Context, c *restClient, r *resource, _ []string) error {
		body := map[string]any{"source_client_id": source, "target_client_id": target, "protocol": protocol, "name": name}
		if err := errors.Join(addListen(body, listen), addService(body, service), addOptions(cmd.Flags(), mappingOptions, body)); err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, "/mappings", body)
		if err != nil {
			return err
		}
		return r.print(f.stdout, b)
	})
	flags := cmd.Flags()
	nameFlag(cmd, &source, "source", "client", "`client` that listens, by name or id (default: this agent's)")
	nameFlag(cmd, &target, "target", "client", "`client` that dials the service, by name or id (default: this agent's)")
	protocolFlag(cmd, &protocol)
	flags.StringVar(&listen, "listen", "", "`[host:]port` to listen on (default host: 127.0.0.1)")
	flags.StringVar(&service, "service", "", "`host:port` to dial, or unix:PATH; none for socks5")
	flags.StringVar(&name, "name", "", "`name` for people")
	optionFlags(cmd, mappingOptions)
	require(cmd, "listen")
	cmd.MarkFlagsOneRequired("source", "target")
	for _, flag := range []string{"source", "target"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, f.complete("client")) // the flags are made above
	}
	return cmd
}

func (f *localFlags) deleteMapping() *cobra.Command {
	cmd := &cobra.Command{Use: "delete MAPPING...", Aliases: []string{"rm"}, Short: "Delete mappings from or to the agent",
		RunE: f.do(func(ctx context.Context, c *restClient, r *resource, args []string) error {
			for _, id := range args {
				if _, err := c.call(ctx, http.MethodDelete, "/mappings/"+id, nil); err != nil {
					return fmt.Errorf("delete mapping %s: %w", id, err)
				}
				if !r.api.json {
					fmt.Fprintf(f.stdout, "deleted mapping %s\n", id)
				}
			}
			return nil
		})}
	(&resource{name: "mapping"}).takesSome(cmd)
	cmd.ValidArgsFunction = f.complete("mapping")
	return cmd
}

func (f *localFlags) redeem() *cobra.Command {
	var name, listen, file string
	cmd := &cobra.Command{Use: "redeem --listen [HOST:]PORT", Short: "Listen here for a service that somebody shared with you", Args: cobra.NoArgs,
		Long: `Make a mapping of a share code: the agent that runs on this machine listens, and
what connects to it reaches the service of whoever gave you the code. No account is
needed. The code is read from standard input, or from a file.`,
		Example: "  tunnox agent redeem --listen 5433"}
	cmd.RunE = f.do(func(ctx context.Context, c *restClient, r *resource, _ []string) error {
		code, err := f.readCode(file)
		if err != nil {
			return err
		}
		body := map[string]any{"code": code, "name": name}
		if err := addListen(body, listen); err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, "/redeem", body)
		if err != nil {
			return err
		}
		return r.print(f.stdout, b)
	})
	cmd.Flags().StringVar(&listen, "listen", "", "`[host:]port` to listen on (default host: 127.0.0.1)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people (default: the share's)")
	cmd.Flags().StringVar(&file, "code-file", "-", "`file` with the share code (- = standard input)")
	require(cmd, "listen")
	return cmd
}

// readCode reads a share code. At a terminal it asks for the code, and needs no end of
// input.
func (f *localFlags) readCode(file string) (string, error) {
	if file != "-" || !f.atTerminal() {
		return f.readSecret(file)
	}
	line, err := f.askLine(context.Background(), "Share code: ")
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.Join(errors.New("read the share code: it is empty"), err)
	}
	return line, nil
}

func (f *localFlags) clients() *cobra.Command {
	return &cobra.Command{Use: "clients", Short: "List the machines of this user, by the names that tunnox forward takes", Args: cobra.NoArgs,
		RunE: f.do(func(ctx context.Context, c *restClient, r *resource, _ []string) error {
			p, err := c.list(ctx, "/clients", 0, 0)
			if err != nil {
				return err
			}
			return r.api.printList(f.stdout, []column{field("NAME", "client_name"), field("CLIENT", "client_id")}, p)
		})}
}
