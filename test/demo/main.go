// Demo shows Tunnox at work on one machine: a server, two agents, two services, a
// mapping to each, and a request through them.
//
// It runs the real programs as a newcomer would, over REST and sockets, and imports
// nothing of them. It runs until it is interrupted; with ONCE=1 in the environment it
// ends after the check. It leaves no process and no file behind except the programs in
// bin/.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	o := options{once: os.Getenv("ONCE") != "", bin: cmp.Or(os.Getenv("DEMO_BIN"), "bin")}
	if err := run(context.Background(), o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options say how the demo runs.
type options struct {
	once bool   // end after the check
	bin  string // where the programs are built; bin/ is where make build puts them, so that the printed lines can be pasted
}

// startTimeout bounds every wait for a start, on a slow machine under load.
const startTimeout = 30 * time.Second

// run is the whole demo.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	dir, err := os.MkdirTemp("", "tunnox-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step(out, "Building tunnoxd and tunnox into "+o.bin)
	if err := build(ctx, o.bin); err != nil {
		return err
	}

	// This ends what was started, newest first: agents before their server.
	started := children{bin: o.bin}
	defer func() { err = errors.Join(err, started.end()) }()

	step(out, "Starting the server (embedded: no database, no broker to install)")
	server, err := startServer(ctx, &started, dir)
	if err != nil {
		return err
	}
	step(out, "Starting a small HTTP service and a TCP echo service")
	services, err := startServices()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, services.close()) }()

	step(out, "Creating a user, two clients and two mappings over REST")
	scene, err := createScene(ctx, server, services)
	if err != nil {
		return err
	}
	step(out, "Starting an agent for each client")
	for _, c := range []client{scene.office, scene.datacentre} {
		if err := startAgent(&started, server, c, filepath.Join(dir, c.name)); err != nil {
			return err
		}
	}

	step(out, "Sending a request through each mapping")
	if err := showTraffic(ctx, out, scene, started.failed); err != nil {
		return err
	}
	if err := showMapping(ctx, out, server, scene); err != nil {
		return err
	}
	showNext(out, o.bin, server, scene)
	if o.once {
		fmt.Fprintln(out, "\nEverything worked.")
		return nil
	}
	fmt.Fprintln(out, "\nAll of it stays up until Ctrl-C.")
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nEnding.")
		return nil
	case err := <-started.failed:
		return err
	}
}

func step(out io.Writer, what string) { fmt.Fprintln(out, "->", what) }
