package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func clientCommand(api *apiFlags) *cobra.Command {
	r := &resource{api: api, name: "client", path: "/api/v1/clients", columns: []column{
		field("CLIENT", "client_id"), field("NAME", "client_name"), field("TYPE", "client_type"), field("USER", "user_id"),
		field("STATUS", "status"), field("NODE", "node_id"), field("LAST SEEN", "last_seen"),
	}, first: []string{"client_id", "client_name", "client_desc", "client_type", "user_id", "status"}}
	cmd := &cobra.Command{Use: "client", Short: "Create, list, show, change and delete clients"}
	cmd.AddCommand(r.createClient(), r.claim(), filtering(r.list("user"), "status", "type"), r.show(), r.updateClient(), r.rotate(), r.disconnect(), r.remove(), r.history())
	cmd.AddCommand(r.switches("Let a client connect again", "End a client's session and let it not connect")...)
	return cmd
}

func (r *resource) createClient() *cobra.Command {
	var user int64
	var name, description, file string
	cmd := &cobra.Command{Use: "create --user ID --name NAME", Short: "Create a client and print its auth code, this once", Args: cobra.NoArgs}
	cmd.RunE = r.api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		return r.withAuthCode(out, file, func() ([]byte, error) {
			return c.call(ctx, http.MethodPost, r.path,
				map[string]any{"user_id": user, "client_name": name, "client_desc": description})
		})
	})
	cmd.Flags().Int64Var(&user, "user", 0, "`id` of the user the client belongs to (default: whoever asks)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.Flags().StringVar(&description, "description", "", "`text` for people")
	authCodeFile(cmd, &file)
	require(cmd, "name")
	return cmd
}

func (r *resource) updateClient() *cobra.Command {
	cmd := r.act("update ID", "Change a client's name or description", http.MethodPut, "", func(flags *pflag.FlagSet) (any, error) {
		return changedStrings(flags, map[string]string{"name": "client_name", "description": "client_desc"}), nil
	})
	cmd.Flags().String("name", "", "`name` from now on")
	cmd.Flags().String("description", "", "`text` from now on")
	cmd.MarkFlagsOneRequired("name", "description")
	return cmd
}

func (r *resource) disconnect() *cobra.Command {
	return r.act("disconnect ID", "End a client's sessions, wherever it is connected; its agent may come back", http.MethodPost, "/disconnect", nil)
}

func (r *resource) rotate() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "rotate ID", Short: "Give a client another auth code; the one it has ends now", Args: oneID,
		RunE: r.api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			return r.withAuthCode(out, file, func() ([]byte, error) {
				return c.call(ctx, http.MethodPost, r.path+"/"+args[0]+"/rotate-credential", nil)
			})
		})}
	authCodeFile(cmd, &file)
	return cmd
}

func authCodeFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "auth-code-file", "", "write the auth code to this new `file`, readable by you only, instead of printing it")
}

// withAuthCode asks for an auth code and hands it to people: in a file, or on
// the screen with how to use it. The file is opened before the code is asked
// for, since afterwards nobody has it a second time.
func (r *resource) withAuthCode(out io.Writer, path string, ask func() ([]byte, error)) error {
	if path == "" {
		b, err := ask()
		if err != nil {
			return err
		}
		return r.printWithAuthCode(out, b)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("auth code file: %w", err)
	}
	b, err := ask()
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	o, err := parseObject(b)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	code, _ := o["auth_code"].(string) // without one, the file says so by being empty
	_, err = fmt.Fprintln(file, code)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("auth code file: %w; make another with: tunnox client rotate %s", err, o.text("client_id"))
	}
	delete(o, "auth_code")
	if b, err = json.Marshal(o); err != nil {
		return err
	}
	return r.print(out, b)
}

// printWithAuthCode says, for people, that the code is shown once and how to use it.
func (r *resource) printWithAuthCode(out io.Writer, b []byte) error {
	if err := r.print(out, b); err != nil || r.api.json {
		return err
	}
	o, err := parseObject(b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, `
The auth code is shown this once. On the client's machine, with it in a file:
  tunnox agent --server HOST:PORT --pin sha256:... --client-id %s --auth-code-file FILE
`, o.text("client_id"))
	return err
}
