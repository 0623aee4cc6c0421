// Tunnoxd is the server of Tunnox: control plane, forwarder, or both.
//
// Its duty is to read its settings, make the parts, start them and end them in order.
// It makes no decisions of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	syscall.Umask(0o077) // files of the server are for its own account; SQLite creates files itself
	os.Exit(exitCode(os.Stderr, run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)))
}

// Exit codes; scripts depend on them.
const (
	exitOK      = 0
	exitFailure = 1 // the program could not do its work
	exitUsage   = 2 // the command line, the environment or a file is wrong
)

// usageError is a fault in the command line, the environment or the file of settings.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode prints the error and gives the process's status.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	for line := range strings.Lines(err.Error()) { // one fault in each line
		fmt.Fprintf(stderr, "tunnoxd: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

// run is the whole program. It ends when ctx ends, or on SIGINT or SIGTERM; a second
// signal ends the process at once.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := &cobra.Command{
		Use:   "tunnoxd",
		Short: "Server of Tunnox: connects agents behind NAT with each other",
		Long: `Tunnoxd is the server of Tunnox. "tunnoxd serve" runs all of it in one process.
"control" and "forwarder" run its two roles in separate processes, which need
Postgres and Redis.

Every setting is a flag, an environment variable (--log-level is
TUNNOX_LOG_LEVEL) and a line of the YAML file of --config (log-level: debug);
the first of these that sets it wins. Exit codes: 0 ok, 1 failure, 2 usage.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       shortVersion(),
	}
	root.SetVersionTemplate(buildVersion() + "\n")
	began := false // before a command begins, an error is a usage error
	under := root
	command := func(use, short, long string, settings []string, do func(context.Context, *config, io.Writer, *slog.Logger) error) *cobra.Command {
		cfg := &config{}
		cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
		cfg.flags(cmd.Flags(), settings, commonSettings)
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			if err := cfg.load(cmd.Flags(), environ); err != nil {
				return err
			}
			began = true
			return do(cmd.Context(), cfg, stdout, newLogger(stderr, cfg))
		}
		under.AddCommand(cmd)
		return cmd
	}
	command("serve", "Run control plane and forwarder in one process",
		serveLong, serveSettings, serve)
	command("control", "Run the control plane: API, relay and projector",
		controlLong, controlSettings, controlOnly)
	command("forwarder", "Run a forwarder, to which agents connect",
		forwarderLong, forwarderSettings, forwarderOnly)
	command("migrate", "Bring a database to the schema of this version",
		migrateLong, migrateSettings, migrate)
	for _, c := range []struct {
		use, short, long string
		do               func(context.Context, *config, tokenTo) error
	}{
		{"join-token", "Print the token with which forwarders join the cluster", joinTokenLong, joinToken},
		{"rotate-join-token", "Replace the join token by a new one, and print it", rotateJoinTokenLong, rotateJoinToken},
	} {
		var file string
		made := command(c.use, c.short, c.long, tokenSettings, func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return c.do(ctx, cfg, tokenOut(file, out))
		})
		made.Flags().StringVar(&file, "out", "", "`file` to which the token is written instead of printing it; only its owner can read the file")
	}
	var passFile string
	var limits passLimits
	passes := command("node-token", "Make a join token for one node, or for a time", nodeTokenLong, tokenSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return makeNodeToken(ctx, cfg, limits, tokenOut(passFile, out))
		}).Flags()
	passes.StringVar(&passFile, "out", "", "`file` to which the token is written instead of printing it; only its owner can read the file")
	passes.BoolVar(&limits.many, "many", false, "let any number of nodes join with it, and not only one")
	passes.DurationVar(&limits.expires, "expires", time.Hour, "`time` after which nobody joins with it; 0 = never")

	var user redisUser
	users := command("redis-user", "Make a user of Redis for forwarders, or give it a new password", redisUserLong, redisUserSettings,
		func(ctx context.Context, cfg *config, out io.Writer, log *slog.Logger) error {
			return makeRedisUser(ctx, cfg, user, out, log)
		}).Flags()
	users.StringVar(&user.file, "out", "", "`file` that gets the URL for forwarders; only its owner can read it")
	users.StringVar(&user.name, "name", "", "`name` of the only forwarder that uses it (empty = all use one)")
	users.BoolVar(&user.remove, "remove", false, "end the user and its connections")

	var exported exportOptions
	to := command("export", "Write the whole log to a file", exportLong, logSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return exportLog(ctx, cfg, exported, out, stderr)
		}).Flags()
	to.StringVar(&exported.out, "out", "", "`file` to write, - for standard output")
	to.BoolVar(&exported.noDataKeys, "no-data-keys", false, "leave out the keys of personal data")
	var imported string
	command("import", "Fill an empty database from an exported file", importLong, logSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return importLog(ctx, cfg, imported, out, stderr)
		}).Flags().StringVar(&imported, "in", "", "`file` to read")

	under = &cobra.Command{Use: "audit", Short: "Prove and replay the log", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	root.AddCommand(under)
	var verified verifyOptions
	of := command("verify", "Prove that the log matches its signed checkpoints", verifyLong, logSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return verifyLog(ctx, cfg, verified, out, stderr)
		}).Flags()
	of.StringVar(&verified.export, "export", "", "`file` of tunnoxd export, instead of a database")
	of.StringArrayVar(&verified.checkpoints, "checkpoint", nil, "`file` with a checkpoint that you have kept; may be repeated")
	of.StringVar(&verified.key, "key", "", "`key` that signs checkpoints (name+hash+base64), or a file of them")
	of.BoolVar(&verified.json, "json", false, "print the report as JSON")
	var replayed replayOptions
	of = command("replay", "Print users, clients and mappings as of a position or a moment", replayLong, logSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return replay(ctx, cfg, replayed, out, stderr)
		}).Flags()
	of.StringVar(&replayed.until, "until", "", "`position` or time (RFC 3339)")
	of.BoolVar(&replayed.json, "json", false, "print one JSON object")
	under = root

	var check bool
	command("rebuild", "Rebuild the read models, or check them", rebuildLong, rebuildSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return rebuild(ctx, cfg, check, out, stderr)
		}).Flags().BoolVar(&check, "check", false, "replace nothing and print the differences")

	var doctorJSON bool
	command("doctor", "Look for what hinders a server, and say what to do", doctorLong, doctorSettings,
		func(ctx context.Context, cfg *config, out io.Writer, _ *slog.Logger) error {
			return doctor(ctx, cfg, doctorJSON, out)
		}).Flags().BoolVar(&doctorJSON, "json", false, "print JSON")

	root.AddCommand(serviceCommand(stdout, &began))
	root.AddCommand(&cobra.Command{Use: "version", Short: "Print the version of this build", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(stdout, buildVersion())
			return err
		}})

	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !began {
		return usageError{err}
	}
	return err
}

func newLogger(stderr io.Writer, cfg *config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo // check has refused other levels; this is for tests that skip it
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(stderr, options))
	}
	return slog.New(slog.NewTextHandler(stderr, options))
}
