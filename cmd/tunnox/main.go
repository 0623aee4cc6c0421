// Tunnox is the program for the people who use Tunnox: it runs an agent, and it
// speaks to a server's REST API from the command line.
//
// Its limit: it knows the wire protocol and REST, nothing of how a server works.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(exitCode(os.Stderr, run(context.Background(), os.Args[1:], surroundings{
		environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, services: servicesDir(),
	})))
}

// servicesDir is where the state of services with accounts of their own is, for root.
func servicesDir() string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return ""
	}
	return "/var/lib"
}

// surroundings are what the process was started in.
type surroundings struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	services       string  // parent of the state of services that have accounts of their own; "" = this account cannot see it
	context        *string // what --context says, once the command line is read; nil: there is no such flag
}

// variable gives an environment variable, "" when it is not set.
func (s surroundings) variable(name string) string {
	value := ""
	for _, entry := range s.environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v // the last one counts, as in a shell
		}
	}
	return value
}

// Exit codes; scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1 // a failure: of a file, of the disk, of the server itself
	exitUsage       = 2 // the command line is wrong
	exitRefused     = 3 // the server refused the command
	exitUnreachable = 4 // no server answered, or a server with another key
)

const exitCodesHelp = `Exit codes: 0 ok, 1 failure, 2 usage, 3 refused by the server (the message
says why), 4 the server cannot be reached or is not the one expected.`

// codedError is an error with the exit code it comes to.
type codedError struct {
	code int
	err  error
}

func (e codedError) Error() string { return e.err.Error() }
func (e codedError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return codedError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode says what went wrong and gives the process's status.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "tunnox: %s\n", oneLine(strings.TrimSuffix(line, "\n")))
	}
	if coded, ok := errors.AsType[codedError](err); ok {
		return coded.code
	}
	return exitFailure
}

// run is the whole program. It ends when ctx does, or on SIGINT or SIGTERM; a
// second signal ends the process at once.
func run(ctx context.Context, args []string, s surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	s.stdout = s.onScreen()
	s.context = new(string)
	root := &cobra.Command{
		Use:   "tunnox",
		Short: "Agent and command line of Tunnox",
		Long: `Tunnox joins machines behind NAT. "tunnox agent" runs on such a machine;
the other commands manage users, clients and mappings over a server's REST API.

` + exitCodesHelp + `
An agent never ends with 4: it tries again.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	versionFlag(root)
	root.SetArgs(args)
	root.SetIn(s.stdin)
	root.SetOut(s.stdout)
	root.SetErr(s.stderr)

	root.PersistentFlags().StringVar(s.context, "context", "", "`name` of the server that this command is for, of those that tunnox use lists (environment: TUNNOX_CONTEXT)")
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return s.contextNames(), noFiles
	})

	api := &apiFlags{surroundings: s}
	for _, cmd := range []*cobra.Command{
		userCommand(api), clientCommand(api), mappingCommand(api), nodeCommand(api), eventsCommand(api), auditCommand(api), statusCommand(api), statsCommand(api),
		keyCommand(api), shareCommand(api), inviteCommand(api), domainCommand(api), webhookCommand(api), planCommand(api), loginCommand(api), logoutCommand(api), whoamiCommand(api),
	} {
		api.declare(cmd.PersistentFlags())
		root.AddCommand(cmd)
	}
	root.AddCommand(joinCommand(s), useCommand(s), doctorCommand(s), serviceCommand(s), agentCommand(s), versionCommand(s))
	root.AddCommand(tunnelCommands(s)...)

	shorten(root)
	completing(root, api)

	began := false // before a command begins, an error is one of usage
	noteBeginning(root, &began)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w; see %s --help", err, cmd.CommandPath())
	})
	err := root.ExecuteContext(ctx)
	if _, coded := errors.AsType[codedError](err); err != nil && !began && !coded {
		return codedError{exitUsage, fmt.Errorf("%w; see tunnox --help", err)}
	}
	return err
}

// shorten lets people write ls for list, everywhere.
func shorten(cmd *cobra.Command) {
	if cmd.Name() == "list" {
		cmd.Aliases = append(cmd.Aliases, "ls")
	}
	for _, sub := range cmd.Commands() {
		shorten(sub)
	}
}

// noteBeginning sets began when any command under cmd starts its work. A command
// that only groups others wants one of them: in a script, a word that is missing
// or wrong must not look like success.
func noteBeginning(cmd *cobra.Command, began *bool) {
	if do := cmd.RunE; do != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*began = true
			if state, context := cmd.Flags().Lookup("state"), cmd.Flags().Lookup("context"); state != nil && state.Changed && context != nil && context.Changed {
				return usageError("--state and --context exclude each other: each says where the identity is")
			}
			return do(cmd, args)
		}
	} else if cmd.HasParent() && cmd.HasSubCommands() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("unknown command %q for %q; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return usageError("%s needs a command; see %s --help", cmd.CommandPath(), cmd.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		noteBeginning(sub, began)
	}
}
