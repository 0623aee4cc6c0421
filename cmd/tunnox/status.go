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
	"time"

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
	Machine *machineStatus    `json:"machine,omitempty"` // this machine, if it has joined
}

const statusLong = `Show how this machine is: who it is, at which server, its sessions and tunnels, what is
wrong and what to do. This needs no API key: the agent of this machine answers.

If --api or an API key is given, or this machine has joined no server, show also whether
the server is ready and how many clients are online. The key is that of the REST API.

The status is 0 when nothing is wrong, and 1 when something is.`

func statusCommand(api *apiFlags) *cobra.Command {
	f := &localFlags{surroundings: api.surroundings}
	cmd := &cobra.Command{Use: "status", Short: "Show this machine and its tunnels, or whether a server is ready", Args: cobra.NoArgs, Long: statusLong}
	cmd.Flags().StringVar(&f.state, "state", "", "`directory` with this machine's identity (environment: TUNNOX_STATE; default "+defaultStateDir(api.surroundings)+")")
	cmd.Flags().Int64Var(&f.clientID, "client-id", 0, "`id` of the client, if several agents run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given := f.stateGiven()
		at, err := api.place(f.state)
		if err != nil {
			return err
		}
		if given {
			api.state = at.dir
		}
		f.timeout, f.json, f.state = min(api.timeout, machineLimit), api.json, at.dir
		if !given && !machineKnown(f.state) {
			return api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
				return c.showStatus(ctx, out, api.json, nil)
			})(cmd, args)
		}
		m, err := f.machine(cmd.Context())
		if err != nil {
			return err
		}
		if !at.only {
			m.Context = at.name
		}
		if !api.wanted() {
			if err := m.show(api.stdout, api.json); err != nil {
				return err
			}
			return m.err()
		}
		return api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
			return errors.Join(c.showStatus(ctx, out, api.json, m), m.err())
		})(cmd, args)
	}
	return cmd
}

// machineLimit bounds how long the agent of this machine may take to answer.
const machineLimit = 10 * time.Second

// wanted tells whether somebody has named the API or a key for it.
func (f *apiFlags) wanted() bool {
	if f.url != "" || f.keyFile != "" || f.variable("TUNNOX_API") != "" {
		return true
	}
	to, err := f.destination() // a key may be that of another server
	return err == nil && to.environ && f.variable("TUNNOX_API_KEY") != ""
}

func (m *machineStatus) show(out io.Writer, asJSON bool) error {
	if !asJSON {
		return m.print(out)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return printJSON(out, b)
}

// showStatus shows the status of the server, behind that of this machine if there is one.
func (c *restClient) showStatus(ctx context.Context, out io.Writer, asJSON bool, m *machineStatus) error {
	if m != nil && !asJSON {
		if err := m.print(out); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	s.Machine = m
	if err := s.print(out, asJSON); err != nil {
		return err
	}
	if !s.Ready {
		return errors.New("the server is not ready")
	}
	return nil
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
