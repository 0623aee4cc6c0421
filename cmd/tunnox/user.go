package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/domain"
)

func userCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "user", path: "/api/v1/users", columns: []column{
		field("USERNAME", "username"), field("USER", "user_id"), field("EMAIL", "email"),
		field("STATUS", "status"), field("CREATED", "created_at"),
	}}
	cmd := &cobra.Command{Use: "user", Short: "Create, list, show, change and delete users"}
	cmd.AddCommand(r.createUser(), filtering(r.list(), "status", "role"), r.setWord("role", "admin or user", "Set the role of a user"), r.setWord("plan", "one of tunnox plan list", "Put a user on a plan"), r.show(), r.updateUser(), r.remove(), r.erase(), r.history(), r.quota())
	cmd.AddCommand(r.switches("Enable a user again", "Disable a user with all clients and mappings")...)
	return cmd
}

func (r *resource) createUser() *cobra.Command {
	var username, email, passwordFile, role, plan string
	cmd := &cobra.Command{Use: "create --username NAME --email ADDRESS", Short: "Create a user", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"username": username, "email": email}
		if role != "" {
			body["role"] = role
		}
		if plan != "" {
			body["plan"] = plan
		}
		if passwordFile != "" {
			password, err := r.api.readSecret(passwordFile)
			if err != nil {
				return err
			}
			body["password"] = password
		}
		b, err := c.call(ctx, http.MethodPost, r.path, body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	changes(cmd)
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user, unique")
	cmd.Flags().StringVar(&email, "email", "", "e-mail `address`, unique")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "`file` with a password (- = standard input)")
	cmd.Flags().StringVar(&role, "role", "", "admin or user (default: user)")
	cmd.Flags().StringVar(&plan, "plan", "", "`name` of the plan whose limits the user gets (default: no limits; see tunnox plan list)")
	require(cmd, "username", "email")
	return cmd
}

func (r *resource) updateUser() *cobra.Command {
	cmd := r.act("update ID", "Change a user's name, address or password", http.MethodPut, "", func(flags *pflag.FlagSet) (any, error) {
		body := changedStrings(flags, map[string]string{"username": "username", "email": "email"})
		if flags.Changed("password-file") {
			path, err := flags.GetString("password-file")
			if err != nil {
				return nil, err
			}
			if body["password"], err = r.api.readSecret(path); err != nil {
				return nil, err
			}
		}
		if flags.Changed("current-password-file") {
			path, err := flags.GetString("current-password-file")
			if err != nil {
				return nil, err
			}
			if body["current_password"], err = r.api.readSecret(path); err != nil {
				return nil, err
			}
		}
		return body, nil
	})
	cmd.Flags().String("username", "", "new `name` of the user")
	cmd.Flags().String("email", "", "new e-mail `address`")
	cmd.Flags().String("password-file", "", "`file` with the new password (- = standard input)")
	cmd.Flags().String("current-password-file", "", "`file` with the present password, which users must give to change their own (- = standard input)")
	cmd.MarkFlagsOneRequired("username", "email", "password-file")
	return cmd
}

// setWord sets one field of a user that has a route of its own.
func (r *resource) setWord(field, values, short string) *cobra.Command {
	cmd := &cobra.Command{Use: field + " USER VALUE", Short: short, Long: short + ": VALUE is " + values + "."}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usageError("a user and %s are needed: %s", values, cmd.UseLine())
		}
		return someNames(cmd, args[:1])
	}
	r.names(cmd, true)
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		b, err := c.call(ctx, http.MethodPut, r.path+"/"+args[0]+"/"+field, map[string]any{field: args[1]})
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	changesOne(cmd)
	return cmd
}

// erase deletes a user and erases the personal data.
func (r *resource) erase() *cobra.Command {
	cmd := &cobra.Command{Use: "erase USER", Short: "Delete a user and erase the personal data, for ever",
		Long: `Delete a user with all clients, mappings, keys and shares, and forget what the log
holds about the person: names, addresses, passwords. The log stays as it is, and so
do its proofs; what was about the person cannot be read any more. A user who was
deleted before can be erased too.`,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			if _, err := c.call(ctx, http.MethodPost, r.path+"/"+args[0]+"/erase", nil); err != nil || r.api.json {
				return err
			}
			_, err := fmt.Fprintf(out, "erased user %s\n", args[0])
			return err
		})}
	r.takesOne(cmd)
	changesOne(cmd)
	ends(cmd)
	return cmd
}

func planCommand(api *apiFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "plan", Short: "List the plans of the server"}
	list := &cobra.Command{Use: "list", Short: "List plans with their limits", Args: cobra.NoArgs}
	list.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		b, err := c.call(ctx, http.MethodGet, "/api/v1/plans", nil)
		if err != nil {
			return err
		}
		var p page
		if err := json.Unmarshal(b, &p); err != nil {
			return err
		}
		columns := []column{field("PLAN", "name")}
		for _, limit := range domain.LimitFields() {
			columns = append(columns, column{strings.ToUpper(strings.ReplaceAll(limit.Flag, "-", " ")), func(o object) string {
				if o[limit.Name] == nil {
					return "unlimited"
				}
				return o.text(limit.Name)
			}})
		}
		return api.printList(out, columns, p)
	})
	cmd.AddCommand(list)
	return cmd
}

// isLimit reports whether null in the field means that there is no limit.
func isLimit(field string) bool {
	return slices.ContainsFunc(domain.LimitFields(), func(limit domain.LimitField) bool { return limit.Name == field })
}

// quota shows the limits of a user and what the user has, or sets the given limits.
func (r *resource) quota() *cobra.Command {
	cmd := &cobra.Command{Use: "quota USER", Short: "Show or set the limits of a user",
		Long: "Show the limits of a user and what the user has. Flags set limits: a number, or \"unlimited\"."}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		limits, err := givenLimits(cmd.Flags())
		if err != nil {
			return err
		}
		method, body := http.MethodGet, any(nil)
		if len(limits) > 0 {
			method, body = http.MethodPut, limits
		}
		switch {
		case len(limits) > 0 && c.asOf != "":
			return usageError("--as-of shows the past, and limits of the past cannot be set")
		case len(limits) == 0 && (c.dryRun || c.once != "" || c.ifMatch != ""):
			return usageError("there is no limit to set: give one, for example --max-clients 10")
		}
		b, err := c.call(ctx, method, r.path+"/"+args[0]+"/quota", body)
		if err != nil {
			return err
		}
		return r.print(out, b)
	})
	r.takesOne(cmd)
	reads(cmd)
	changesOne(cmd)
	for _, limit := range domain.LimitFields() {
		cmd.Flags().String(limit.Flag, "", "`"+limit.Unit+"`, or unlimited")
	}
	return cmd
}

// givenLimits gives the limits among the flags; null means unlimited to the API.
func givenLimits(flags *pflag.FlagSet) (map[string]any, error) {
	limits := map[string]any{}
	for _, limit := range domain.LimitFields() {
		if !flags.Changed(limit.Flag) {
			continue
		}
		text, err := flags.GetString(limit.Flag)
		if err != nil {
			return nil, err
		}
		if text == "unlimited" {
			limits[limit.Name] = nil
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, usageError("--%s %q: must be a number, 0 or more, or unlimited", limit.Flag, text)
		}
		limits[limit.Name] = n
	}
	return limits, nil
}

// require marks flags that a command needs; cobra names the missing ones.
func require(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is declared one line above the call
		}
	}
}

// changedStrings gives the flags that were set, by the API's field.
func changedStrings(flags *pflag.FlagSet, fields map[string]string) map[string]any {
	body := map[string]any{}
	flags.Visit(func(f *pflag.Flag) {
		if name, ok := fields[f.Name]; ok {
			body[name] = f.Value.String()
		}
	})
	return body
}
