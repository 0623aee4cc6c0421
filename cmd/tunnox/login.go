package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

const loginLong = `Log in with a password and print the tokens. TUNNOX_API_KEY and --api-key-file
take an access token as well as a key; for programs make a key: tunnox key create.`

func loginCommand(api *apiFlags) *cobra.Command {
	var username, passwordFile string
	cmd := &cobra.Command{Use: "login --username NAME --password-file FILE", Short: "Log in with a password and print the tokens", Args: cobra.NoArgs, Long: loginLong}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		password, err := api.readSecret(passwordFile)
		if err != nil {
			return err
		}
		return api.ask(ctx, c, out, http.MethodPost, "/api/v1/auth/login", map[string]any{"username": username, "password": password})
	})
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "`file` with the password (- = standard input)")
	require(cmd, "username", "password-file")
	cmd.AddCommand(refreshCommand(api))
	return cmd
}

func refreshCommand(api *apiFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "refresh --refresh-token-file FILE", Short: "Change a refresh token for new tokens; it is good once", Args: cobra.NoArgs}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
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
	return &cobra.Command{Use: "logout", Short: "End the login that the access token is of", Args: cobra.NoArgs,
		RunE: api.do(func(ctx context.Context, c *restClient, _ io.Writer, _ []string) error {
			_, err := c.call(ctx, http.MethodPost, "/api/v1/auth/logout", nil)
			return err
		})}
}

func whoamiCommand(api *apiFlags) *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Show whose key or token is used, and what it may do", Args: cobra.NoArgs,
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
