package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

var eventColumns = []column{
	field("POSITION", "position"), field("TIME", "meta.at"), field("EVENT", "name"), field("STREAM", "stream"),
	field("ACTOR", "meta.actor"), field("FROM", "meta.source"),
}

func eventsCommand(api *apiFlags) *cobra.Command {
	var after int64
	var limit int
	cmd := &cobra.Command{Use: "events", Short: "Show the log: what was done, when and by whom", Args: cobra.NoArgs,
		Long: "Show the log. With --json each event has its data too. \"tunnox mapping history ID\" shows one resource's."}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		p, err := c.list(ctx, "/api/v1/events", after, limit)
		if err != nil {
			return err
		}
		return api.printList(out, eventColumns, p)
	})
	cmd.Flags().Int64Var(&after, "after", 0, "only events behind this `position`")
	cmd.Flags().IntVar(&limit, "limit", 0, "print at most this many (0 = all)")
	return cmd
}
