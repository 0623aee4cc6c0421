package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
)

// claimLast bounds how long a claim code is valid: it is for use at once, and everybody
// who sees it can use it.
const claimLast = 7 * 24 * time.Hour

// claimCode prints, on the machine of an anonymous agent, a proof that the agent
// belongs to its owner.
func claimCode(s surroundings) *cobra.Command {
	var state, user string
	lasts := lifetime(time.Hour)
	cmd := &cobra.Command{Use: "claim-code", Short: "Print a code with which a user takes over this machine's anonymous client", Args: cobra.NoArgs,
		Long: `Print a claim code: signed with the key of this machine's anonymous agent, it
lets a user make its client their own (tunnox client claim). The agent may run; it
goes on under its new id by itself. With --for only that user can use the code.`}
	cmd.RunE = func(*cobra.Command, []string) error {
		state, err := stateDir(s, state)
		if err != nil {
			return err
		}
		if time.Duration(lasts) > claimLast {
			return usageError("--expires %v: must be at most %v", time.Duration(lasts), claimLast)
		}
		id, err := (&agent.State{File: filepath.Join(state, "client.json")}).Load()
		if err != nil {
			return err
		}
		if id.ClientID == 0 {
			return fmt.Errorf("there is no registered agent in %s: start one first, or give its --state", state)
		}
		code, err := id.Credential.ClaimCode(id.ClientID, user, time.Now().Add(time.Duration(lasts)))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.stdout, code)
		return err
	}
	cmd.Flags().StringVar(&state, "state", "", "`directory` of the agent's client.json (environment: TUNNOX_STATE)")
	cmd.Flags().StringVar(&user, "for", "", "`name` of the only user who may use the code (default: anybody who has it)")
	cmd.Flags().Var(&lasts, "expires", "how `long` the code is valid, for example 30m or 2d")
	return cmd
}

func (r *resource) claim() *cobra.Command {
	var user int64
	var name, file string
	cmd := &cobra.Command{Use: "claim --code-file FILE", Short: "Give an anonymous client, with its mappings, to a user", Args: cobra.NoArgs,
		Long: "Give an anonymous client to a user, with the claim code that\n\"tunnox agent claim-code\" prints on the client's machine."}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		code, err := r.api.readSecret(file)
		if err != nil {
			return err
		}
		if code == "" {
			return errors.New("the claim code is empty")
		}
		body := map[string]any{"claim_code": code}
		if user != 0 {
			body["user_id"] = user
		}
		if name != "" {
			body["name"] = name
		}
		b, err := c.call(ctx, http.MethodPost, r.path+"/claim", body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	cmd.Flags().StringVar(&file, "code-file", "", "`file` with the claim code (- = standard input)")
	nameFlag(cmd, &user, "user", "user", "`user` who is the owner, by name or id (default: the caller)")
	cmd.Flags().StringVar(&name, "name", "", "new `name` (default: the present name)")
	changes(cmd)
	require(cmd, "code-file")
	return cmd
}
