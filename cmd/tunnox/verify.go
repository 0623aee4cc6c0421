package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
)

// verify shows the phrases that two owners compare.
func (f *localFlags) verify() *cobra.Command {
	cmd := &cobra.Command{Use: "verify [CLIENT]", Short: "Show the phrases with which two owners see that nobody stands between their agents",
		Long: `Show, for each agent at the other end of mappings with the encryption e2e, a phrase
of eight groups of digits, made of its key and this agent's. "tunnox agent verify"
at the other machine shows the same phrase. If it does not, the two agents have been
told different keys: do not use the connection, and ask who runs the server.

Read the phrases to each other by telephone, or compare them side by side. Without
that you trust that everybody is shown the same log of keys. The agents check this
by themselves: each key comes with a proof, and agents that connect compare what
they have seen.`,
		Example: "  tunnox agent verify\n  tunnox agent verify datacentre",
		RunE: f.do(func(ctx context.Context, c *restClient, r *resource, args []string) error {
			path := "/keys"
			if len(args) == 1 {
				path += "?client=" + args[0]
			}
			b, err := c.call(ctx, http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			return f.printKeys(r, b)
		})}
	(&resource{name: "client"}).takesSome(cmd)
	named := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return nil
		case 1:
			return named(cmd, args)
		}
		return usageError("at most one client can be given: %s", cmd.UseLine())
	}
	cmd.ValidArgsFunction = f.complete("client")
	return cmd
}

// printKeys prints what the agent knows of keys. What is wrong is an error.
func (f *localFlags) printKeys(r *resource, b []byte) error {
	var keys agent.LocalKeys
	if err := json.Unmarshal(b, &keys); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	if r.api.json {
		if err := printJSON(f.stdout, b); err != nil {
			return err
		}
	} else {
		state := "not announced yet"
		if keys.Number != 0 {
			state = fmt.Sprintf("number %d in the server's log", keys.Number)
		}
		fmt.Fprintf(f.stdout, "this agent: client %d\n  key     %s, %s\n", keys.ClientID, oneLine(keys.Key), state)
		if keys.Next != "" {
			fmt.Fprintf(f.stdout, "  next    %s, not proven yet\n", oneLine(keys.Next))
		}
		for _, peer := range keys.Peers {
			from := "named with --peer-key"
			if peer.Number != 0 {
				from = fmt.Sprintf("number %d in the server's log, proven", peer.Number)
			}
			fmt.Fprintf(f.stdout, "client %d\n  key     %s, %s\n  phrase  %s\n", peer.ClientID, oneLine(peer.Key), from, oneLine(peer.Phrase))
		}
		if len(keys.Peers) == 0 {
			fmt.Fprintln(f.stdout, "no key of another agent is known: keys are asked for with the first connection of a mapping, or name a client")
		}
	}
	if keys.Trouble != "" {
		return errors.New("the server's log is not to be believed: " + oneLine(keys.Trouble))
	}
	return nil
}

// rotateKey has the running agent take another key.
func (f *localFlags) rotateKey(cmd *cobra.Command) error {
	return f.do(func(ctx context.Context, c *restClient, _ *resource, _ []string) error {
		b, err := c.call(ctx, http.MethodPost, "/keys/rotate", nil)
		if err != nil {
			return err
		}
		var keys agent.LocalKeys
		if err := json.Unmarshal(b, &keys); err != nil {
			return fmt.Errorf("read the agent's answer: %w", err)
		}
		_, err = fmt.Fprintln(f.stdout, keys.Key)
		return err
	})(cmd, nil)
}
