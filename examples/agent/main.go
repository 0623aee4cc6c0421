// Command agent shows how a program runs an agent inside itself, so that a
// service can be reached without a second program beside it.
//
// The agent keeps its identity in client.json and registers as an anonymous
// client at its first start, which the server must allow (--anonymous on).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/transport"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	server := flags.String("server", "127.0.0.1:8080", "address of a forwarder")
	pinned := flags.String("pin", "", "fingerprint of the server's key, from its join line")
	state := flags.String("state", "client.json", "file that keeps the identity")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pin, err := transport.ParsePin(*pinned)
	if err != nil {
		return fmt.Errorf("read --pin: %w", err)
	}
	// The zero policy allows services on this machine's loopback. Add what else
	// may be dialled, for example a database beside this machine.
	policy, err := agent.ParsePolicy([]string{"10.0.0.5:5432"})
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{
		Servers: []string{*server},
		Dial: func(ctx context.Context, server string) (transport.Session, error) {
			return transport.DialTLS(ctx, server, transport.DialConfig{Pins: []transport.Pin{pin}})
		},
		State:  &agent.State{File: *state},
		Policy: policy,
		Name:   "embedded",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Online: func(clientID int64, node string) { fmt.Printf("online as %d at %s\n", clientID, node) },
	})
	if err != nil {
		return err
	}
	err = a.Run(ctx) // comes back by itself after every lost link
	if ended, ok := errors.AsType[*agent.EndedError](err); ok {
		return fmt.Errorf("the server refused this agent for good: %w", ended)
	}
	return err
}
