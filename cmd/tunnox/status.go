package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/spf13/cobra"
)

// serverStatus is the output of status. Its JSON is made from the API's answers.
type serverStatus struct {
	API     string            `json:"api"`
	Ready   bool              `json:"ready"`
	Checks  map[string]string `json:"checks"`
	Version json.RawMessage   `json:"version"`
	Clients int               `json:"clients"`
	Online  int               `json:"clients_online"`
}

func statusCommand(api *apiFlags) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show whether a server is ready, and how many clients are online", Args: cobra.NoArgs,
		Long: "Show whether a server is ready, and how many clients are online.\nThe status is 0 when it is ready, and 1 when it is not.",
		RunE: api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
			s, err := c.status(ctx)
			if err != nil {
				return err
			}
			if err := s.print(out, api.json); err != nil {
				return err
			}
			if !s.Ready {
				return errors.New("the server is not ready")
			}
			return nil
		})}
}

func (c *restClient) status(ctx context.Context) (*serverStatus, error) {
	s := &serverStatus{API: c.base}
	var err error
	if s.Version, err = c.call(ctx, http.MethodGet, "/version", nil); err != nil {
		return nil, err
	}
	b, resp, err := c.send(ctx, http.MethodGet, "/ready", nil)
	if err != nil {
		return nil, err
	}
	var ready struct {
		Checks map[string]string `json:"checks"`
	}
	if err := json.Unmarshal(b, &ready); err != nil {
		return nil, fmt.Errorf("read /ready: %w", err)
	}
	s.Ready, s.Checks = resp.StatusCode == http.StatusOK, ready.Checks
	if !s.Ready {
		return s, nil // the lists may not be readable; the server is not ready, and that is the answer
	}
	clients, err := c.list(ctx, "/api/v1/clients", 0, 0)
	if err != nil {
		return nil, err
	}
	s.Clients = len(clients.Items)
	for _, item := range clients.Items {
		o, err := parseObject(item)
		if err != nil {
			return nil, err
		}
		if o["status"] == "online" {
			s.Online++
		}
	}
	return s, nil
}

func (s *serverStatus) print(out io.Writer, asJSON bool) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, b)
	}
	version, err := parseObject(s.Version)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "api      %s\nversion  %s\n", s.API, oneLine(version.text("version")))
	if s.Ready {
		fmt.Fprintf(out, "ready    yes\nclients  %d, %d online\n", s.Clients, s.Online)
		return nil
	}
	fmt.Fprintln(out, "ready    no")
	for _, name := range slices.Sorted(maps.Keys(s.Checks)) {
		fmt.Fprintf(out, "         %s: %s\n", oneLine(name), oneLine(s.Checks[name]))
	}
	return nil
}
