package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the Makefile (-ldflags -X main.version=...). A build without it
// shows what the Go toolchain recorded.
var version string

// shortVersion gives one word, for the server's lists of agents and its logs.
func shortVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()")
}

// versionText gives the output of the command and of the flag.
func versionText() string {
	return fmt.Sprintf("tunnox %s %s %s/%s\n", shortVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func versionCommand(s surroundings) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of this build", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(s.stdout, versionText())
			return err
		}}
}

// versionFlag adds --version. Cobra's own prints by a template, and a program that links
// templates keeps every exported method of every type: 3 MB of this one. test/cross.sh holds the size.
func versionFlag(root *cobra.Command) {
	asked := root.Flags().Bool("version", false, "print the version of this build")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*asked {
			return cmd.Help()
		}
		_, err := fmt.Fprint(cmd.OutOrStdout(), versionText())
		return err
	}
}
