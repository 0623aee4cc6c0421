package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func statsCommand(api *apiFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "stats", Short: "Show traffic and connections"}
	cmd.AddCommand(
		api.stats("system", "Show the numbers of users, clients and mappings, and the traffic of all", "/api/v1/stats/system"),
		api.stats("realtime", "Show the present traffic", "/api/v1/stats/realtime"),
		api.statsOfUsers(),
		api.statsOf("user", "Show the traffic of a user", "/api/v1/stats/users/"),
		api.statsOf("client", "Show the traffic through a client", "/api/v1/stats/clients/"),
		api.traffic(),
	)
	return cmd
}

// showStats prints one answer: the API's JSON, or its fields.
func (a *apiFlags) showStats(ctx context.Context, c *restClient, out io.Writer, path string) error {
	b, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(out, b)
	}
	return printFields(out, b, nil)
}

func (a *apiFlags) stats(use, short, path string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
			return a.showStats(ctx, c, out, path)
		})}
}

func (a *apiFlags) statsOf(use, short, path string) *cobra.Command {
	cmd := &cobra.Command{Use: use + " " + strings.ToUpper(use), Short: short,
		RunE: a.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
			return a.showStats(ctx, c, out, path+args[0])
		})}
	(&resource{api: a, name: use}).takesOne(cmd)
	return cmd
}

func (a *apiFlags) statsOfUsers() *cobra.Command {
	cmd := &cobra.Command{Use: "users", Short: "List the traffic of users in this month", Args: cobra.NoArgs}
	columns := []column{field("USERNAME", "username"), field("USER", "user_id"), field("TRAFFIC", "current_month_traffic"),
		{"LIMIT", func(o object) string {
			if o["monthly_traffic_limit"] == nil {
				return "unlimited"
			}
			return o.text("monthly_traffic_limit")
		}}, field("CONNECTIONS", "connections_open")}
	limit := limitFlag(cmd.Flags())
	cmd.RunE = a.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		p, err := c.list(ctx, "/api/v1/stats/users", 0, int(*limit))
		if err != nil {
			return err
		}
		return a.printList(out, columns, p)
	})
	return cmd
}

// trafficChart is the answer of /stats/traffic.
type trafficChart struct {
	Range       string          `json:"range"`
	StepSeconds int64           `json:"step_seconds"`
	Total       trafficBucket   `json:"total"`
	Buckets     []trafficBucket `json:"buckets"`
}

type trafficBucket struct {
	From        time.Time `json:"from"`
	ToTarget    int64     `json:"to_target"`
	ToSource    int64     `json:"to_source"`
	Total       int64     `json:"total"`
	Connections int64     `json:"connections"`
}

func (a *apiFlags) traffic() *cobra.Command {
	var span string
	var chart bool
	subjects := map[string]*int64{"user": new(int64), "client": new(int64), "mapping": new(int64)}
	cmd := &cobra.Command{Use: "traffic", Short: "Show traffic over time", Args: cobra.NoArgs,
		Long: "Show traffic over time: on a terminal as a chart, otherwise as a table with bytes."}
	cmd.RunE = a.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		query := url.Values{"range": {span}}
		for name, id := range subjects {
			if *id != 0 {
				query.Set(name+"_id", strconv.FormatInt(*id, 10))
			}
		}
		b, err := c.call(ctx, http.MethodGet, "/api/v1/stats/traffic?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		if a.json {
			return printJSON(out, b)
		}
		var t trafficChart
		if err := json.Unmarshal(b, &t); err != nil {
			return fmt.Errorf("read the API's answer: %w", err)
		}
		switch {
		case t.Total == trafficBucket{From: t.Total.From}: // rows of zeros say less than a sentence
			_, err := fmt.Fprintf(out, "no traffic in %s\n", oneLine(t.Range))
			return err
		case chart || isTerminal(out):
			return t.draw(out)
		}
		return t.table(out)
	})
	cmd.Flags().StringVar(&span, "range", "24h", "how far back: 1h, 24h, 7d or 30d")
	cmd.Flags().BoolVar(&chart, "chart", false, "draw a chart also without a terminal")
	for _, name := range []string{"user", "client", "mapping"} {
		nameFlag(cmd, subjects[name], name, name, "only of this `"+name+"`, by name or id")
	}
	cmd.MarkFlagsMutuallyExclusive("user", "client", "mapping")
	return cmd
}

func (t trafficChart) table(out io.Writer) error {
	var items []json.RawMessage
	for _, b := range t.Buckets {
		item, err := json.Marshal(b)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	return printTable(out, []column{field("FROM", "from"), field("TO TARGET", "to_target"), field("TO SOURCE", "to_source"),
		field("TOTAL", "total"), field("CONNECTIONS", "connections")}, items)
}

// chartWidth is how many characters the longest bar has. With the text beside it the
// chart fits a terminal of 80.
const chartWidth = 50

// draw draws one bar for each bucket, as long as its bytes.
func (t trafficChart) draw(out io.Writer) error {
	var most int64
	for _, b := range t.Buckets {
		most = max(most, b.Total)
	}
	layout := "Jan 02 15:04"
	switch {
	case t.StepSeconds >= 24*3600:
		layout = "Mon Jan 02"
	case t.StepSeconds <= 60:
		layout = "15:04"
	}
	var text strings.Builder
	for _, b := range t.Buckets {
		fmt.Fprintf(&text, "%s  %9s  %s\n", b.From.UTC().Format(layout), bytesText(b.Total), bar(b.Total, most))
	}
	fmt.Fprintf(&text, "\n%s in %s (times are UTC): %s to targets, %s to sources, %d connections\n",
		bytesText(t.Total.Total), oneLine(t.Range), bytesText(t.Total.ToTarget), bytesText(t.Total.ToSource), t.Total.Connections)
	_, err := io.WriteString(out, text.String())
	return err
}

// bar draws n of most, in eighths of a character.
func bar(n, most int64) string {
	if n <= 0 || most <= 0 {
		return ""
	}
	eighths := max(1, int(math.Round(float64(n)/float64(most)*chartWidth*8)))
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return text
}

// bytesText gives bytes for people.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1000, 0
	for value >= 999.95 && unit < 4 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[unit])
}
