package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func webhookCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "webhook", path: "/api/v1/webhooks", columns: []column{
		field("WEBHOOK", "webhook_id"), field("URL", "url"), field("EVENTS", "events"), field("SCOPE", "scope"), field("STATUS", "status"),
		field("USER", "user_id"), field("CREATED", "created_at"),
	}, first: []string{"webhook_id", "url", "events", "scope", "status", "reason", "user_id"}}
	cmd := &cobra.Command{Use: "webhook", Short: "Send events to others: create, change, test and delete webhooks, and show deliveries"}
	cmd.AddCommand(r.createWebhook(), ofOwner(r.list()), r.show(), r.updateWebhook(), r.remove(), r.rotateWebhook(),
		r.send("test ID", "Send a test message to a webhook", "/test"), r.deliveries(), r.redeliver())
	cmd.AddCommand(r.switches("Enable a webhook; waiting deliveries are sent", "Disable a webhook")...)
	return cmd
}

var webhookSecret = secret{field: "secret", name: "secret", again: "tunnox webhook rotate-secret ID", id: "webhook_id"}

func (r *resource) createWebhook() *cobra.Command {
	var user int64
	var address, description, file string
	var events []string
	var all bool
	cmd := &cobra.Command{Use: "create --url URL", Short: "Create a webhook and print its secret, which is shown only once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"url": address}
		if user != 0 {
			body["user_id"] = user
		}
		if len(events) > 0 {
			body["events"] = words(events)
		}
		if all {
			body["scope"] = "all"
		}
		if description != "" {
			body["description"] = description
		}
		return r.withSecret(out, file, webhookSecret, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path, body)
		})
	})
	flags := cmd.Flags()
	nameFlag(cmd, &user, "user", "user", "`user` who is the owner, by name or id (default: the caller)")
	flags.StringVar(&address, "url", "", "`URL` to which events are sent")
	flags.StringSliceVar(&events, "event", nil, "`name` of an event, or the beginning of names followed by *, for example \"mapping_*\" (default: all)")
	flags.BoolVar(&all, "all", false, "send the events of every account; admins only (webhooks of the operator always do)")
	flags.StringVar(&description, "description", "", "`text` for people")
	flags.StringVar(&file, "secret-file", "", "write the secret to this new `file`, readable by you only, instead of printing it")
	changes(cmd)
	require(cmd, "url")
	return cmd
}

func (r *resource) updateWebhook() *cobra.Command {
	cmd := r.act("update ID", "Change the events or the URL of a webhook", http.MethodPut, "", func(flags *pflag.FlagSet) (any, error) {
		body := map[string]any{}
		for _, name := range []string{"url", "scope", "description"} {
			if flags.Changed(name) {
				body[name] = flags.Lookup(name).Value.String()
			}
		}
		if flags.Changed("event") {
			events, err := flags.GetStringSlice("event")
			if err != nil {
				return nil, err
			}
			body["events"] = words(events)
		}
		if len(body) == 0 {
			return nil, usageError("nothing to change: give --url, --event, --scope or --description")
		}
		return body, nil
	})
	cmd.Flags().String("url", "", "`URL` to which events are sent")
	cmd.Flags().StringSlice("event", nil, "`names` of events, or beginnings of names followed by *; \"\" = all")
	cmd.Flags().String("scope", "", "own, or all = the events of every account; admins only")
	cmd.Flags().String("description", "", "`text` for people")
	return cmd
}

func (r *resource) rotateWebhook() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "rotate-secret ID", Short: "Replace a webhook's secret and print the new one, only once; messages are signed with both for a day", Args: oneID}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		return r.withSecret(out, file, webhookSecret, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path+"/"+args[0]+"/rotate-secret", nil)
		})
	})
	cmd.Flags().StringVar(&file, "secret-file", "", "write the secret to this new `file`, readable by you only, instead of printing it")
	changesOne(cmd)
	return cmd
}

// delivery is the form of deliveries for people.
func (r *resource) delivery() *resource {
	return &resource{api: r.api, columns: []column{
		field("DELIVERY", "delivery_id"), field("TYPE", "type"), field("POSITION", "position"), field("STATUS", "status"), field("ATTEMPTS", "attempts"),
		field("CODE", "last.status_code"), field("LAST", "last.at"), field("NEXT", "next_at"), field("ERROR", "last.error"),
	}, first: []string{"delivery_id", "message_id", "type", "position", "status", "attempts"}}
}

// send is a command that makes the server send something.
func (r *resource) send(use, short, suffix string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: oneID,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			b, err := c.call(ctx, http.MethodPost, r.path+"/"+args[0]+suffix, nil)
			if err != nil {
				return err
			}
			return r.delivery().print(out, b)
		})}
}

func (r *resource) deliveries() *cobra.Command {
	limit := count(50)
	var after int64
	cmd := &cobra.Command{Use: "deliveries ID", Short: "List recent and waiting deliveries of a webhook, the newest first", Args: oneID}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		p, err := c.list(ctx, r.path+"/"+args[0]+"/deliveries", after, int(limit))
		if err != nil {
			return err
		}
		return r.api.printList(out, r.delivery().columns, p)
	})
	cmd.Flags().Var(&limit, "limit", "print at most this `number` (0 = all)")
	cmd.Flags().Int64Var(&after, "after", 0, "only those older than the delivery with this `id`")
	return cmd
}

func (r *resource) redeliver() *cobra.Command {
	return &cobra.Command{Use: "redeliver WEBHOOK DELIVERY", Short: "Send a delivery again, at once",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError("two ids are needed: %s", cmd.UseLine())
			}
			return someIDs(cmd, args)
		},
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			b, err := c.call(ctx, http.MethodPost, fmt.Sprintf("%s/%s/deliveries/%s/redeliver", r.path, args[0], args[1]), nil)
			if err != nil {
				return err
			}
			return r.delivery().print(out, b)
		})}
}
