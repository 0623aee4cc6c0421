package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/checkup"
)

const doctorLong = `Look for what hinders this machine: how its server is reached, over each transport,
through which proxy; whether the server is the one expected and accepts this machine;
clocks; the size of packets; the services here that mappings lead to. Each line that
is not ok says what to do.

If an agent runs on this machine, it is asked. Otherwise this program connects for a
moment as the agent would. A machine that has not joined gives --server and --pin.

The state of a check is ok, note (works, but look at it) or failed. The status is 0 when
nothing has failed, and 1 when something has.`

// doctor looks for faults.
type doctor struct {
	foreground // finds the identity, and an agent
	report     checkup.Report
	limit      time.Duration // of each attempt to reach something
}

func doctorCommand(s surroundings) *cobra.Command {
	d := &doctor{foreground: foreground{surroundings: s}}
	cmd := &cobra.Command{Use: "doctor", Short: "Look for what hinders this machine, and say what to do", Long: doctorLong, Args: cobra.NoArgs,
		Example: "  tunnox doctor\n  tunnox doctor --server tunnox.example.org:8080#sha256:..."}
	f := cmd.Flags()
	f.StringVar(&d.state, "state", "", "`directory` with this machine's identity (environment: TUNNOX_STATE; default "+defaultStateDir(s)+")")
	f.StringSliceVar(&d.servers, "server", nil, "`address` of a server that this machine has not joined, host:port#sha256:..., or host:port with --pin")
	f.StringSliceVar(&d.pins, "pin", nil, "`fingerprint` of the server's key, sha256:...")
	f.BoolVar(&d.json, "json", false, "print JSON")
	f.DurationVar(&d.limit, "timeout", 5*time.Second, "the longest `time` for each attempt to reach something")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if d.limit <= 0 {
			return usageError("--timeout %v must be more than 0, for example 5s", d.limit)
		}
		if err := d.examine(cmd.Context()); err != nil {
			return err
		}
		if err := d.print(); err != nil {
			return err
		}
		return d.report.Err()
	}
	return cmd
}

// examine does all checks, from what everything needs to what few things need.
func (d *doctor) examine(ctx context.Context) error {
	at, err := d.place(d.state)
	if err != nil {
		return err
	}
	d.state, d.timeout = at.dir, d.limit
	k, err := at.read()
	identity := err == nil
	if err != nil {
		d.report.Fail("identity", "do what the message says, then start the agent again", "%v", err)
	}
	addresses, pins, err := parseServers(d.servers)
	if err != nil {
		return codedError{exitUsage, err}
	}
	if len(addresses) == 0 {
		addresses, d.pins = k.joined.Servers, append(d.pins, k.joined.Pins...)
	}
	verify, err := (&agentOptions{surroundings: d.surroundings, pins: d.pins}).dialConfig(pins)
	if err != nil {
		return codedError{exitUsage, err}
	}
	if len(addresses) == 0 {
		if identity {
			d.report.Fail("identity", "run tunnox join CODE, with the code of an invitation; or give --server and --pin", "this machine has not joined a server")
		}
		return nil
	}
	reached := false
	from := len(d.report.Findings)
	for _, address := range addresses {
		reached = d.server(ctx, address, verify) || reached
	}
	if reached {
		d.report.Soften(from) // the agent uses the server that answers
	}
	if identity && reached {
		d.machine(ctx, k, len(d.servers) > 0)
	}
	if len(d.servers) == 0 {
		d.api(ctx, k)
	}
	return nil
}

func (d *doctor) print() error {
	if d.json {
		return d.report.JSON(d.stdout)
	}
	people, ok := d.stdout.(*screen)
	if !ok {
		return d.report.Print(d.stdout, nil)
	}
	colours := map[checkup.State]string{checkup.OK: green, checkup.Note: yellow, checkup.Failed: red}
	return d.report.Print(people, func(state checkup.State, text string) string { return people.paint(colours[state], text) })
}
