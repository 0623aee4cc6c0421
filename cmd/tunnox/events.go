package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/wait"
)

var eventColumns = []column{
	field("POSITION", "position"), field("TIME", "meta.at"), field("EVENT", "name"), field("STREAM", "stream"),
	field("ACTOR", "meta.actor"), field("FROM", "meta.source"),
}

// latestEvents is how many events are shown if nobody says how many.
const latestEvents = 20

// eventFilter selects events, with the API's filters.
type eventFilter struct {
	actor, subject, kind, from, to string
	owner                          int64
	newest                         bool
}

func (f *eventFilter) declare(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.actor, "actor", "", "only events that this `actor` caused, for example user:100000001")
	flags.StringVar(&f.subject, "subject", "", "only events of one `resource`, for example mapping-1001")
	flags.StringVar(&f.kind, "type", "", "only `events` with these names, separated by commas, for example mapping_created")
	nameFlagOf(flags, &f.owner, "owner", "user", "only events of the account of this `user`, by name or id")
	flags.StringVar(&f.from, "from", "", "only from this `time` on, for example 2026-01-02T15:04:05Z")
	flags.StringVar(&f.to, "to", "", "only before this `time`")
}

func (f *eventFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"actor": f.actor, "subject": f.subject, "type": f.kind, "from": f.from, "to": f.to} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.owner != 0 {
		q.Set("owner", strconv.FormatInt(f.owner, 10))
	}
	if f.newest {
		q.Set("order", "newest")
	}
	return q
}

func eventsCommand(api *apiFlags) *cobra.Command {
	var after int64
	filter := &eventFilter{}
	cmd := &cobra.Command{Use: "events", Short: "Show the events of the log, with their times and actors", Args: cobra.NoArgs,
		Long: "Show the latest events of the log, the newest last; --limit says how many. With --after or --from they begin there.\n--json shows their data too. \"tunnox mapping history ID\" shows the events of one resource."}
	all := false
	limit := limitFlag(cmd.Flags())
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		flags, most, query := cmd.Flags(), int(*limit), filter.query()
		latest := !all && !filter.newest && !flags.Changed("after") && !flags.Changed("from")
		if latest {
			query.Set("order", "newest")
			if !flags.Changed("limit") {
				most = latestEvents
			}
		}
		p, err := c.list(ctx, "/api/v1/audit?"+query.Encode(), after, most)
		if err != nil {
			return err
		}
		if latest {
			slices.Reverse(p.Items)
			if p.Next != nil && isTerminal(api.stderr) {
				defer fmt.Fprintf(api.stderr, "these are the latest %d events; --all shows the whole log\n", len(p.Items))
			}
		}
		return api.printList(out, eventColumns, p)
	})
	filter.declare(cmd)
	cmd.Flags().Int64Var(&after, "after", 0, "only events after this `position`")
	cmd.Flags().BoolVar(&filter.newest, "newest", false, "the newest first")
	cmd.Flags().BoolVar(&all, "all", false, "the whole log, from its beginning")
	cmd.MarkFlagsMutuallyExclusive("all", "newest")
	cmd.AddCommand(followCommand(api, filter), exportCommand(api, filter), revertCommand(api))
	return cmd
}

func followCommand(api *apiFlags, filter *eventFilter) *cobra.Command {
	var after int64
	cmd := &cobra.Command{Use: "follow", Short: "Print events as they happen, one JSON object in each line", Args: cobra.NoArgs,
		Long: "Print events as they happen. When the connection ends, it is made again and no event is missed."}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		q := filter.query()
		q.Set("after", strconv.FormatInt(after, 10))
		last := ""
		for {
			err := c.follow(ctx, "/api/v1/events/stream?"+q.Encode(), &last, out)
			if coded, ok := errors.AsType[codedError](err); ctx.Err() != nil {
				return nil // interrupted by the user; this is the normal end
			} else if ok && (coded.code == exitRefused || last == "") {
				return err
			}
			wait.For(ctx, time.Second)
		}
	})
	cmd.Flags().Int64Var(&after, "after", -1, "begin after this `position`: 0 = the whole log, -1 = only new events")
	return cmd
}

// open sends a GET whose answer is read as long as it lasts.
func (c *restClient) open(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return nil, c.unreachable(err)
		}
		return nil, c.answerError(resp, b)
	}
	return resp, nil
}

// follow prints the events of a live stream until it ends, and remembers its place.
func (c *restClient) follow(ctx context.Context, path string, last *string, out io.Writer) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	resp, err := c.open(ctx, path, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20) // an event may have a megabyte
	id := *last
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			id = value
		case "data":
			if _, err := fmt.Fprintln(out, value); err != nil {
				return err
			}
		case "":
			*last = id
		}
	}
	return lines.Err()
}

func exportCommand(api *apiFlags, filter *eventFilter) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "export", Short: "Write events to a file, one JSON object in each line", Args: cobra.NoArgs,
		Long: "Write events as the API shows them, without secrets. To verify or move the log, use \"tunnoxd export\"."}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) (err error) {
		resp, err := c.open(ctx, "/api/v1/audit?"+filter.query().Encode(), http.Header{"Accept": {"application/x-ndjson"}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		to := out
		if file != "" && file != "-" {
			f, openErr := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
			if openErr != nil {
				return fmt.Errorf("write the export: %w", openErr)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			to = f
		}
		total, err := strconv.Atoi(resp.Header.Get("X-Total-Count"))
		if err != nil {
			return fmt.Errorf("read the API's answer: X-Total-Count: %w", err)
		}
		n, err := copyLines(to, resp.Body, api.stderr, total)
		if err == nil && n != total {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("the export ended after %d of %d events: %w", n, total, err)
		}
		return nil
	})
	cmd.Flags().StringVar(&file, "out", "", "`file` to write (- or empty = standard output)")
	return cmd
}

// copyLines copies lines and reports its progress every second.
func copyLines(to io.Writer, from io.Reader, progress io.Writer, total int) (n int, err error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 4<<20)
	w := bufio.NewWriter(to)
	due := time.Now().Add(time.Second)
	for lines.Scan() {
		if !json.Valid(lines.Bytes()) {
			return n, errors.New("a line is not JSON")
		}
		if _, err := w.Write(append(lines.Bytes(), '\n')); err != nil {
			return n, err
		}
		n++
		if now := time.Now(); now.After(due) {
			due = now.Add(time.Second)
			fmt.Fprintf(progress, "tunnox: %d of %d events (%d%%)\n", n, total, 100*n/max(total, 1))
		}
	}
	return n, errors.Join(lines.Err(), w.Flush())
}

func revertCommand(api *apiFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "revert POSITION", Short: "Revert an event: send the command that restores the state before it", Args: oneID}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		b, err := c.call(ctx, http.MethodPost, "/api/v1/events/"+args[0]+"/revert", nil)
		if err != nil {
			return err
		}
		if api.json {
			return printJSON(out, b)
		}
		var p struct {
			Command string            `json:"command"`
			Events  []json.RawMessage `json:"events"`
		}
		if err := json.Unmarshal(b, &p); err != nil {
			return fmt.Errorf("read the API's answer: %w", err)
		}
		return printTable(out, eventColumns, p.Events)
	})
	changes(cmd)
	ends(cmd)
	return cmd
}
