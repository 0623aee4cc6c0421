package main

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func inviteCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "invite", path: "/api/v1/invites", columns: []column{
		field("NAME", "name"), field("INVITE", "invite_id"), field("USER", "user_id"),
		{"USES", func(o object) string { return o.text("uses") + "/" + o.text("max_uses") }}, field("EXPIRES", "expires_at"), field("CREATED", "created_at"),
	}, first: []string{"invite_id", "name", "user_id", "uses", "max_uses", "expires_at"}}
	cmd := &cobra.Command{Use: "invite", Short: "Invite machines to become clients: create, list, show and revoke invitations"}
	cmd.AddCommand(r.createInvite(), ofOwner(r.list()), r.show(), r.revoke())
	return cmd
}

func (r *resource) createInvite() *cobra.Command {
	var user, uses int64
	var name, file string
	var lasts lifetime
	var asQR bool
	cmd := &cobra.Command{Use: "create", Short: "Make an invitation and print its code, which is shown only once", Args: cobra.NoArgs,
		Long: "Make an invitation and print its code, which is shown only once. With the code a machine becomes\na client of the user: tunnox join CODE"}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		if asQR && (file != "" || r.api.json) {
			return usageError("--qr shows the code to people: leave out --code-file and --json")
		}
		code := ""
		body := map[string]any{"uses": uses, "name": name}
		if user != 0 {
			body["user_id"] = user
		}
		if lasts != 0 {
			body["expires_in"] = int64((time.Duration(lasts) + time.Second - 1) / time.Second)
		}
		err := r.withSecret(out, file, secret{field: "code", name: "code", again: "tunnox invite create",
			use: " On the machine that is to join:\n  tunnox join CODE"}, func() ([]byte, error) {
			b, err := c.call(ctx, http.MethodPost, r.path, body)
			if o, parsed := parseObject(b); err == nil && parsed == nil {
				code, _ = o["code"].(string)
			}
			return b, err
		})
		if err != nil || !asQR || code == "" {
			return err
		}
		return r.api.showQR(out, "tunnox join "+code)
	})
	flags := cmd.Flags()
	nameFlag(cmd, &user, "user", "user", "`user` whose clients the machines become, by name or id (default: the caller)")
	flags.StringVar(&name, "name", "", "`name` for people")
	flags.Int64Var(&uses, "uses", 1, "`number` of machines that may join with it")
	flags.Var(&lasts, "expires", "how `long` it is valid, for example 1h, 2d or 1w (default: 1w)")
	flags.BoolVar(&asQR, "qr", false, "show the line for the other machine as a QR code too")
	flags.StringVar(&file, "code-file", "", "write the code to this new `file`, readable by you only, instead of printing it")
	changes(cmd)
	return cmd
}
