package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func keyCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "key", path: "/api/v1/keys", columns: []column{
		field("NAME", "name"), field("KEY", "key_id"), field("PREFIX", "prefix"), field("USER", "user_id"),
		field("EXPIRES", "expires_at"), field("LAST USED", "last_used"), field("CREATED", "created_at"),
	}, first: []string{"key_id", "name", "prefix", "user_id", "scopes"}}
	cmd := &cobra.Command{Use: "key", Short: "Create, list, show and revoke API keys"}
	cmd.AddCommand(r.createKey(), ofOwner(r.list()), r.show(), r.revoke())
	return cmd
}

func (r *resource) createKey() *cobra.Command {
	var user int64
	var name, file string
	var scopes []string
	var lasts lifetime
	cmd := &cobra.Command{Use: "create --name NAME", Short: "Create an API key and print it; it is shown only once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"name": name}
		if user != 0 {
			body["user_id"] = user
		}
		if len(scopes) > 0 {
			body["scopes"] = words(scopes)
		}
		if at := lasts.end(); at != nil {
			body["expires_at"] = at
		}
		return r.withSecret(out, file, secret{field: "key", name: "key", again: "tunnox key create"}, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path, body)
		})
	})
	nameFlag(cmd, &user, "user", "user", "`user` who is the owner, by name or id (default: the caller)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "allowed uses: read, users:write, clients:write, mappings:write, shares:write, keys:write, webhooks:write, admin (default: all that you have)")
	cmd.Flags().Var(&lasts, "expires", "how `long` it is valid, for example 36h, 30d or 1w (default: without end)")
	cmd.Flags().StringVar(&file, "key-file", "", "write the key to this new `file`, readable by you only, instead of printing it")
	changes(cmd)
	require(cmd, "name")
	return cmd
}
