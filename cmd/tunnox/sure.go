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

// ends gives commands that end something which cannot be had back with one more
// command a flag to do so without asking. They ask whoever sits at a terminal, and
// show what would happen first; scripts are not asked.
func ends(cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.Flags().Bool("yes", false, "do it without asking")
	}
}

// asks tells whether a command with these flags is to ask first.
func (a *apiFlags) asks(flags *pflag.FlagSet) bool {
	yes := flags.Lookup("yes")
	return yes != nil && yes.Value.String() == "false" && !a.json && a.atTerminal()
}

// errUnsure ends a command whose question was not answered with yes.
var errUnsure = errors.New("nothing was changed")

// sure shows what a request would do and asks whether to send it.
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
