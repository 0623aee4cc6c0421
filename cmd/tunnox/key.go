package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func keyCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "key", path: "/api/v1/keys", columns: []column{
		field("KEY", "key_id"), field("NAME", "name"), field("PREFIX", "prefix"), field("USER", "user_id"),
		field("EXPIRES", "expires_at"), field("LAST USED", "last_used"), field("CREATED", "created_at"),
	}, first: []string{"key_id", "name", "prefix", "user_id", "scopes"}}
	cmd := &cobra.Command{Use: "key", Short: "Create, list, show and revoke API keys"}
	cmd.AddCommand(r.createKey(), r.list(), r.show(), r.remove())
	return cmd
}

func (r *resource) createKey() *cobra.Command {
	var user int64
	var name, file string
	var scopes []string
	var lasts time.Duration
	cmd := &cobra.Command{Use: "create --name NAME", Short: "Create an API key and print it, this once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		body := map[string]any{"name": name}
		if user != 0 {
			body["user_id"] = user
		}
		if len(scopes) > 0 {
			body["scopes"] = scopes
		}
		if lasts != 0 {
			body["expires_at"] = time.Now().Add(lasts).UTC().Truncate(time.Second)
		}
		return r.withSecret(out, file, "key", "tunnox key create", func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path, body)
		})
	})
	cmd.Flags().Int64Var(&user, "user", 0, "`id` of the user it is to be of (default: whoever asks)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what it may be used for: read, users:write, clients:write, mappings:write, shares:write, keys:write, admin (default: all you may)")
	cmd.Flags().DurationVar(&lasts, "expires", 0, "after so `long` it is good no more, for example 720h (default: never)")
	cmd.Flags().StringVar(&file, "key-file", "", "write the key to this new `file`, readable by you only, instead of printing it")
	require(cmd, "name")
	return cmd
}

// withSecret asks for something that is shown once, and hands it to people: in a
// file, or on the screen. The file is opened before it is asked for, since
// afterwards nobody has it a second time.
func (r *resource) withSecret(out io.Writer, path, name, again string, ask func() ([]byte, error)) error {
	if path == "" {
		b, err := ask()
		if err != nil {
			return err
		}
		if err := r.print(out, b); err != nil || r.api.json {
			return err
		}
		_, err = fmt.Fprintf(out, "\nThe %s is shown this once.\n", name)
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%s file: %w", name, err)
	}
	b, err := ask()
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	o, err := parseObject(b)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	secret, _ := o[name].(string)
	_, err = fmt.Fprintln(file, secret)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("%s file: %w; make another with: %s", name, err, again)
	}
	delete(o, name)
	if b, err = json.Marshal(o); err != nil {
		return err
	}
	return r.print(out, b)
}

func loginCommand(api *apiFlags) *cobra.Command {
	var username, passwordFile string
	cmd := &cobra.Command{Use: "login --username NAME --password-file FILE", Short: "Log in with a password and print the tokens", Args: cobra.NoArgs,
		Long: `Log in with a password and print the tokens. TUNNOX_API_KEY and --api-key-file
take an access token as well as a key; for programs make a key: tunnox key create.`}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		password, err := api.readSecret(passwordFile)
		if err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, "/api/v1/auth/login", map[string]any{"username": username, "password": password})
		if err != nil {
			return err
		}
		return (&resource{api: api}).print(out, b)
	})
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "`file` with the password (- = standard input)")
	require(cmd, "username", "password-file")
	return cmd
}
