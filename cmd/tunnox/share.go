package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func shareCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "share", path: "/api/v1/shares", columns: []column{
		field("NAME", "name"), field("SHARE", "share_id"), field("USER", "user_id"), field("TARGET", "target_client_id"),
		{"SERVICE", serviceShown},
		{"USES", func(o object) string { return o.text("uses") + "/" + o.text("max_uses") }}, field("EXPIRES", "expires_at"),
	}, first: []string{"share_id", "name", "user_id", "target_client_id", "target_host", "target_port", "target"}}
	cmd := &cobra.Command{Use: "share", Short: "Let others listen for a service of yours: create, list, show, revoke and redeem share codes"}
	cmd.AddCommand(r.createShare(), ofOwner(r.list()), r.show(), r.revoke(), r.redeem())
	return cmd
}

func (r *resource) createShare() *cobra.Command {
	var user, target, uses int64
	var protocol, name, service, file string
	var lasts lifetime
	cmd := &cobra.Command{Use: "create --target CLIENT --service HOST:PORT", Short: "Share a service behind a client and print the code, which is shown only once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"target_client_id": target, "protocol": protocol, "max_uses": uses}
		if user != 0 {
			body["user_id"] = user
		}
		if name != "" {
			body["name"] = name
		}
		if at := lasts.end(); at != nil {
			body["expires_at"] = at
		}
		if err := addService(body, service); err != nil {
			return err
		}
		if err := addOptions(cmd.Flags(), mappingOptions, body); err != nil {
			return err
		}
		return r.withSecret(out, file, secret{field: "code", name: "code", again: "tunnox share create"}, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path, body)
		})
	})
	flags := cmd.Flags()
	nameFlag(cmd, &user, "user", "user", "`user` who shares, by name or id (default: the caller)")
	nameFlag(cmd, &target, "target", "client", "`client` that dials the service, by name or id")
	flags.StringVar(&service, "service", "", "`host:port` that the target dials, or unix:PATH")
	protocolFlag(cmd, &protocol)
	flags.StringVar(&name, "name", "", "`name` for people")
	flags.Int64Var(&uses, "uses", 1, "`number` of times that the code can be used")
	flags.Var(&lasts, "expires", "how `long` the code is valid, for example 36h, 2d or 1w (default: without end)")
	flags.StringVar(&file, "code-file", "", "write the code to this new `file`, readable by you only, instead of printing it")
	optionFlags(cmd, mappingOptions)
	changes(cmd)
	require(cmd, "target", "service")
	return cmd
}

func (r *resource) redeem() *cobra.Command {
	var source int64
	var name, listen, codeFile string
	cmd := &cobra.Command{Use: "redeem --source CLIENT --listen [HOST:]PORT --code-file FILE", Short: "Make a mapping from one of your clients, with a share code", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		code, err := r.api.readSecret(codeFile)
		if err != nil {
			return err
		}
		body := map[string]any{"code": code, "source_client_id": source}
		if name != "" {
			body["name"] = name
		}
		if err := addListen(body, listen); err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, r.path+"/redeem", body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	nameFlag(cmd, &source, "source", "client", "`client` that listens, by name or id")
	cmd.Flags().StringVar(&listen, "listen", "", "`[host:]port` on which it listens")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people (default: the share's)")
	cmd.Flags().StringVar(&codeFile, "code-file", "", "`file` with the share code (- = standard input)")
	changes(cmd)
	require(cmd, "source", "listen", "code-file")
	return cmd
}
