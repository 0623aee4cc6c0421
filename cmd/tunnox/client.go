package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func clientCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "client", path: "/api/v1/clients", columns: []column{
		field("NAME", "name"), field("CLIENT", "client_id"), field("TYPE", "client_type"), field("USER", "user_id"),
		field("STATUS", "status"), field("COMMANDS", "commands"), field("NODE", "node_id"), field("TRANSPORT", "transport"), field("LAST SEEN", "last_seen"),
	}, first: []string{"client_id", "name", "description", "client_type", "user_id", "status"}}
	cmd := &cobra.Command{Use: "client", Short: "Create, list, show, change and delete clients"}
	cmd.AddCommand(r.createClient(), r.claim(), filtering(r.list("user"), "status", "type"), r.show(), r.updateClient(), r.rotate(), r.disconnect(), r.remove(), r.history())
	cmd.AddCommand(r.switches("Let a client connect again", "End a client's sessions and refuse new ones")...)
	return cmd
}

func (r *resource) createClient() *cobra.Command {
	var user int64
	var name, description, commands, file string
	cmd := &cobra.Command{Use: "create --user USER --name NAME", Short: "Create a client and print its auth code, which is shown only once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		return r.withSecret(out, file, authCode, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path,
				map[string]any{"user_id": user, "name": name, "description": description, "commands": commands})
		})
	})
	nameFlag(cmd, &user, "user", "user", "`user` who is the owner, by name or id (default: the caller)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.Flags().StringVar(&description, "description", "", "`text` for people")
	cmd.Flags().StringVar(&commands, "commands", "own", commandsHelp)
	authCodeFile(cmd, &file)
	changes(cmd)
	require(cmd, "name")
	return cmd
}

func (r *resource) updateClient() *cobra.Command {
	cmd := r.act("update ID", "Change a client's name or description, or whose agents may lead connections to it", http.MethodPut, "", func(flags *pflag.FlagSet) (any, error) {
		return changedStrings(flags, map[string]string{"name": "name", "description": "description", "commands": "commands"}), nil
	})
	cmd.Flags().String("name", "", "new `name`")
	cmd.Flags().String("description", "", "new `text`")
	cmd.Flags().String("commands", "", commandsHelp)
	cmd.MarkFlagsOneRequired("name", "description", "commands")
	return cmd
}

const commandsHelp = "`WHOSE` agents may have connections led to this client: own (its own agent), all (those of all the user's clients), none (nobody's; then its own agent can command nothing)"

func (r *resource) disconnect() *cobra.Command {
	cmd := &cobra.Command{Use: "disconnect CLIENT", Short: "End a client's sessions at all nodes; its agent may connect again",
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			b, err := c.call(ctx, http.MethodPost, r.path+"/"+args[0]+"/disconnect", nil)
			if err != nil {
				return err
			}
			return r.print(out, b)
		})}
	r.takesOne(cmd)
	changesOne(cmd)
	return cmd
}

func (r *resource) rotate() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "rotate CLIENT", Short: "Give a client a new auth code; the old one ends at once",
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			return r.withSecret(out, file, authCode, func() ([]byte, error) {
				return c.call(ctx, http.MethodPost, r.path+"/"+args[0]+"/rotate-credential", nil)
			})
		})}
	authCodeFile(cmd, &file)
	r.takesOne(cmd)
	changesOne(cmd)
	return cmd
}

func authCodeFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "auth-code-file", "", "write the auth code to this new `file`, readable by you only, instead of printing it")
}

// authCode is the secret with which a client proves its identity.
var authCode = secret{field: "auth_code", name: "auth code", again: "tunnox client rotate ID", id: "client_id", use: ` On the client's machine, with it in a file:
  tunnox agent --server HOST:PORT --pin sha256:... --client-id ID --auth-code-file FILE`}
