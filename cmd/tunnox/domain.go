package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func domainCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "domain", path: "/api/v1/domains", columns: []column{
		field("HOST", "host"), field("DOMAIN", "domain_id"), field("USER", "user_id"), field("STATUS", "status"), field("CREATED", "created_at"),
	}, first: []string{"domain_id", "host", "status", "proof_name", "proof_value", "user_id", "verified_at"}}
	cmd := &cobra.Command{Use: "domain", Short: "Domains of your own for public hosts: add, verify, list, show and remove"}
	remove := r.remove()
	remove.Use, remove.Aliases = "remove "+r.word()+"...", []string{"delete", "rm"}
	verify := r.act("verify ID", "Look for the TXT record of a domain; then mappings may have its name", http.MethodPost, "/verify", nil)
	cmd.AddCommand(r.addDomain(), verify, ofOwner(r.list()), r.show(), remove)
	return cmd
}

func (r *resource) addDomain() *cobra.Command {
	var user int64
	cmd := &cobra.Command{Use: "add HOST", Short: "Add a domain, and print the TXT record that proves it", Args: cobra.ExactArgs(1),
		Long: `Add a domain, such as shop.example.com, and print the TXT record that proves it. Make this
record at the name servers of the domain, and have the name itself lead to the server for
visitors. Then:
  tunnox domain verify shop.example.com
  tunnox mapping create --protocol http --host shop.example.com --target CLIENT --service 127.0.0.1:3000`}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		body := map[string]any{"host": args[0]}
		if user != 0 {
			body["user_id"] = user
		}
		b, err := c.call(ctx, http.MethodPost, r.path, body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	nameFlag(cmd, &user, "user", "user", "`user` whose domain it is to be, by name or id (default: the caller)")
	changes(cmd)
	return cmd
}
