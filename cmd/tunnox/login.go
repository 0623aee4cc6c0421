package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/spf13/cobra"
)

const loginLong = `Log in with a password. The login is kept for this account of the machine, in a
file that only it can read, and used by the commands that follow where no API key
is given; it is prolonged by itself while it is used, and ends with tunnox logout.
Each context of tunnox use has its own login.

With --api-key-file the key is kept in place of a login, so that no later command
needs it; tunnox logout removes it here and does not revoke it.

On a terminal name and password are asked for, and the password is not shown.
Otherwise the password is read from standard input, or from --password-file.

With --json the tokens are printed and nothing is kept: TUNNOX_API_KEY and
--api-key-file take an access token as well as a key. For programs make a key:
tunnox key create.`

func loginCommand(api *apiFlags) *cobra.Command {
	var username, passwordFile string
	cmd := &cobra.Command{Use: "login [--username NAME]", Short: "Log in with a password, or keep an API key", Args: cobra.NoArgs, Long: loginLong}
	cmd.RunE = api.open(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		if api.keyFile != "" {
			return api.keepKey(ctx, c, out, username)
		}
		c.key = "" // another server's must not come along
		name, password, err := api.credentials(ctx, c.base, username, passwordFile)
		if err != nil {
			return err
		}
		b, err := c.call(ctx, http.MethodPost, "/api/v1/auth/login", map[string]any{"username": name, "password": password})
		if err != nil {
			return err
		}
		if api.json {
			return printJSON(out, b)
		}
		kept, err := newLogin(name, b)
		if err != nil {
			return err
		}
		return api.keepLogin(ctx, c, kept, fmt.Sprintf("logged in to %s as %s, until %s, or longer if the login is used before that; end it with tunnox logout\n", c.base, oneLine(name), timeText(kept.RefreshEnds)))
	})
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "`file` with the password (- = standard input)")
	cmd.AddCommand(refreshCommand(api))
	return cmd
}

// keepKey keeps an API key that the server accepts.
func (f *apiFlags) keepKey(ctx context.Context, c *restClient, out io.Writer, username string) error {
	if username != "" {
		return usageError("--username and --api-key-file exclude each other: a key says whose it is")
	}
	b, err := c.call(ctx, http.MethodGet, "/api/v1/auth/me", nil)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(out, b)
	}
	me, err := parseObject(b)
	if err != nil {
		return err
	}
	return f.keepLogin(ctx, c, keptLogin{Username: me.text("actor"), Key: c.key}, fmt.Sprintf("%s accepts the key of %s, which is kept; end that with tunnox logout\n", c.base, oneLine(me.text("actor"))))
}

// keepLogin keeps a login. If nobody has said where the API of the context is, the
// address of --api is kept too, with the certificates of --api-ca, so that no later command needs it.
func (f *apiFlags) keepLogin(ctx context.Context, c *restClient, kept keptLogin, told string) error {
	k, err := c.place.read()
	if err != nil {
		return err
	}
	ca, err := f.givenCA()
	if err != nil {
		return err
	}
	theirs := f.url != "" && k.api() == "" && (k.empty() || ofServer(c.base, k.joined.Servers))
	if theirs || ca != "" && k.api() == c.base {
		if err := c.place.change(func(s *contextSettings) { s.API, s.CA = c.base, cmp.Or(ca, s.CA) }); err != nil {
			return fmt.Errorf("keep the address of the API: %w", err)
		}
	}
	if err := f.loginsAt(c.place).change(ctx, func(all map[string]keptLogin) error { all[c.base] = kept; return nil }); err != nil {
		return err
	}
	_, err = io.WriteString(f.stdout, told)
	return err
}

// ofServer tells whether an API has the host of one of the servers.
func ofServer(api string, servers []string) bool {
	u, err := url.Parse(api)
	return err == nil && slices.ContainsFunc(servers, func(server string) bool { return nameOfServer(server) == nameOfServer(u.Host) })
}

// credentials asks for those that the command line does not give.
func (a *apiFlags) credentials(ctx context.Context, base, username, passwordFile string) (name, password string, err error) {
	if username == "" {
		if !a.atTerminal() {
			return "", "", usageError("--username is missing")
		}
		if username, err = a.askLine(ctx, "User name at "+base+": "); err != nil {
			return "", "", err
		}
	}
	switch {
	case passwordFile != "":
		password, err = a.readSecret(passwordFile)
	case a.atTerminal():
		password, err = a.askHidden(ctx, "Password at "+base+": ")
	default:
		password, err = a.readSecret("-")
	}
	if err == nil && (username == "" || password == "") {
		err = errors.New("a login needs a name and a password")
	}
	return username, password, err
}

func refreshCommand(api *apiFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "refresh --refresh-token-file FILE", Short: "Exchange a refresh token for new tokens; it is valid once", Args: cobra.NoArgs}
	cmd.RunE = api.open(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		token, err := api.readSecret(file)
		if err != nil {
			return err
		}
		return api.ask(ctx, c, out, http.MethodPost, "/api/v1/auth/refresh", map[string]any{"refresh_token": token})
	})
	cmd.Flags().StringVar(&file, "refresh-token-file", "", "`file` with the refresh token (- = standard input)")
	require(cmd, "refresh-token-file")
	return cmd
}

func logoutCommand(api *apiFlags) *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "End the stored login or forget the stored key, or end the login of the given access token", Args: cobra.NoArgs,
		RunE: api.do(func(ctx context.Context, c *restClient, _ io.Writer, _ []string) error {
			forget := func() error {
				return api.loginsAt(c.place).change(ctx, func(all map[string]keptLogin) error { delete(all, c.base); return nil })
			}
			if c.keptKey {
				return forget()
			}
			_, err := c.call(ctx, http.MethodPost, "/api/v1/auth/logout", nil)
			if !c.kept {
				return err
			}
			// A login that the server does not know any more is deleted here too.
			if coded, ok := errors.AsType[codedError](err); err == nil || ok && coded.code == exitRefused {
				return forget()
			}
			return err
		})}
}

func whoamiCommand(api *apiFlags) *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Show the owner of the key or token in use, and its rights", Args: cobra.NoArgs,
		RunE: api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
			return api.ask(ctx, c, out, http.MethodGet, "/api/v1/auth/me", nil)
		})}
}

// ask sends one request and prints the answer: the API's JSON, or its fields.
func (a *apiFlags) ask(ctx context.Context, c *restClient, out io.Writer, method, path string, body any) error {
	b, err := c.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	return (&resource{api: a}).print(out, b)
}
