package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

const joinLong = `Make this machine a client of a user, with an invitation of that user. CODE is the
invitation: the server prints one at its first start, and "tunnox invite create" makes
more. The code holds the server's address and the fingerprint of the server's key, so
no other setting is necessary. The value - reads the code from standard input.

The identity of this machine and the address of its server are kept as a context, or
in --state. Only the owner of the directory can read them. Then "tunnox agent" needs no
flags. A machine can join several servers: tunnox use lists them and chooses one. A
context has the name of the server's host, or that of --as.

Exit codes: 0 joined, 1 failure, 2 usage or a damaged code, 3 refused by the server
(the message gives the reason).`

// joiner makes a machine a client.
type joiner struct {
	surroundings
	state     string
	as        string // name of the context
	name      string
	reachable bool
	timeout   time.Duration
}

func joinCommand(s surroundings) *cobra.Command {
	j := &joiner{surroundings: s}
	cmd := &cobra.Command{Use: "join CODE", Short: "Make this machine a client, with an invitation", Long: joinLong,
		Example: "  tunnox join tnxj_...\n  tunnox agent",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("the code of an invitation is missing: %s", cmd.UseLine())
			}
			return nil // a code that was broken into lines is several words
		}}
	cmd.Flags().StringVar(&j.state, "state", "", "`directory` for this machine's identity (environment: TUNNOX_STATE; default "+defaultStateDir(s)+")")
	cmd.Flags().BoolVar(&j.reachable, "reachable", false, "let the other machines of the same user lead connections to this one, as tunnox forward and tunnox socks do")
	cmd.Flags().StringVar(&j.name, "name", hostname(), "`name` of this machine that users see")
	cmd.Flags().StringVar(&j.as, "as", "", "`name` of the context for tunnox use (default: the server's host)")
	cmd.Flags().DurationVar(&j.timeout, "timeout", 30*time.Second, "the longest `time` to try")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code := strings.Join(args, "")
		if code == "-" {
			text, err := s.readSecret("-")
			if err != nil {
				return err
			}
			code = text
		}
		invite, err := wire.ParseInvite(code)
		if err != nil {
			return codedError{exitUsage, err}
		}
		return j.join(cmd.Context(), invite)
	}
	return cmd
}

func (j *joiner) join(ctx context.Context, invite wire.Invite) error {
	pins := make([]string, len(invite.Pins))
	for i, b := range invite.Pins {
		pins[i] = transport.Pin(b).String()
	}
	to, err := j.placeFor(invite.Servers, pins)
	if err != nil {
		return err
	}
	state := to.dir
	release, err := lockState(state, 0, discardLog)
	if err != nil {
		return err
	}
	defer release()
	kept := &agent.State{File: filepath.Join(state, "client.json")}
	before, err := kept.Load()
	if err != nil {
		return err
	}
	if before.ClientID != 0 {
		return fmt.Errorf("this machine is client %d already (%s)\n  start it with tunnox agent; for a second identity give it a name with --as; for a new identity delete that file", before.ClientID, kept.File)
	}
	var dial transport.DialConfig
	for _, b := range invite.Pins {
		dial.Pins = append(dial.Pins, transport.Pin(b))
	}
	kept.Joined = &agent.Joined{Servers: invite.Servers, Pins: pins}
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	var client int64
	way, err := dialer(j.surroundings, reach.Auto, dial)
	if err != nil {
		return err
	}
	dialled := &dialled{dial: way.Dial, tries: way.Tries}
	a, err := agent.New(agent.Config{
		Servers: invite.Servers, Sessions: 1, State: kept, Invite: invite.Bearer(), Reachable: j.reachable, Name: j.name, Version: shortVersion(), Logger: discardLog,
		Dial:   dialled.do,
		Online: func(id int64, _ string) { client = id; cancel() }, // its identity is kept by now
	})
	if err != nil {
		return err
	}
	err = a.Run(ctx)
	switch refused, isRefused := errors.AsType[*agent.EndedError](err); {
	case client != 0:
		return j.joined(to, invite.Servers[0], client)
	case isRefused:
		j.forget(kept.File, before)
		return codedError{exitRefused, refused}
	case err != nil:
		return err
	}
	// The key is kept: when only the answer was lost, it gets the same client next time.
	return fmt.Errorf("could not join %s: %w\n  is the server running, and can this machine reach it? Try again with the same command", oneLine(strings.Join(invite.Servers, ", ")), dialled.why())
}

// forget removes the key of an identity that came to nothing, if there was none before.
func (j *joiner) forget(file string, before agent.Identity) {
	if !before.Credential.Valid() {
		_ = os.Remove(file) // it names nobody
	}
}

// joined keeps the name of a context, and says how to go on.
func (j *joiner) joined(to place, server string, client int64) error {
	if j.as != "" && to.dir == defaultStateDir(j.surroundings) {
		if err := to.change(func(c *contextSettings) { c.Name = j.as }); err != nil {
			return fmt.Errorf("this machine has joined %s, but the name of the context cannot be kept: %w", oneLine(server), err)
		}
	}
	flag := ""
	if j.state != "" {
		flag = " --state " + j.state // later commands need it too
	} else if chosen, err := j.surroundings.place(""); err != nil || chosen.dir != to.dir {
		flag = " --context " + to.name
	}
	text := fmt.Sprintf("joined %s as client %d, %s\nnow run: tunnox agent%s\nor give a service an address: tunnox http 3000%s\n", oneLine(server), client, oneLine(j.name), flag, flag)
	if flag != "" && j.state == "" {
		text += fmt.Sprintf("for commands without --context run: tunnox use %s\n", to.name)
	}
	_, err := io.WriteString(j.stdout, text)
	return err
}

// stateDir is the directory that was named, or that of the context.
func stateDir(s surroundings, named string) (string, error) {
	p, err := s.place(named)
	return p.dir, err
}
