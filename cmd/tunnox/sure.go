package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ends adds a flag that suppresses the question to commands whose effect cannot be
// undone with one more command. At a terminal they show the effect and ask first;
// scripts are not asked.
func ends(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.Flags().Bool("yes", false, "do it without asking")
	}
}

// asks reports whether a command with these flags must ask first.
func (a *apiFlags) asks(flags *pflag.FlagSet) bool {
	yes := flags.Lookup("yes")
	return yes != nil && yes.Value.String() == "false" && !a.json && a.atTerminal()
}

// errUnsure ends a command after an answer that is not yes.
var errUnsure = errors.New("nothing was changed")

// sure shows the effect of a request and asks whether to send it.
func (a *apiFlags) sure(ctx context.Context, p *plan) error {
	if err := p.show(a.stderr); err != nil {
		return err
	}
	answer, err := a.askLine(ctx, "Go on? [y/N] ")
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", errUnsure, err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errUnsure
}
