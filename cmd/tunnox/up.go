package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const upLong = `Hold all tunnels of a file for as long as this program runs:

  tunnels:
    web:
      http: 3000                 # a public URL
      host: shop                 # left out: one is chosen
      basic: [ann:secret]        # left out: nobody needs a password; or basic_file: FILE
      allow: [192.0.2.0/24]      # and deny; left out: visitors come from anywhere
      host_header: localhost     # what the service sees as Host
      request_headers: {X-From: tunnel, X-Old: }   # one is set, one taken away
    docs:
      http: ./site               # a directory, beside this file
    ssh:
      tcp: 22                    # or udp: a public port
      port: 20005                # left out: one is chosen
    db:
      forward: 5433              # a port here
      to: datacentre:5432        # a service of another machine of yours
      encryption: e2e            # no server can read it; left out: transport
    office:
      socks: datacentre          # a SOCKS5 proxy here, into the network of another machine
      listen: 1080               # left out: 1080, or any free port
    notes:
      expose: 127.0.0.1:8080     # a code for somebody else
      expires: 2d

When the file changes, or on SIGHUP, it is read again: what is the same in it goes on
untouched. A file with a fault changes nothing, and the fault is told with its line.

`

// fileLook is how often it is looked whether the file has changed.
const fileLook = time.Second

func upCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var file string
	check := false
	cmd := &cobra.Command{Use: "up", Short: "Hold all tunnels of a file, tunnox.yaml", Args: cobra.NoArgs, Long: upLong + foregroundCodes,
		Example: "  tunnox up\n  tunnox up --file work.yaml --check"}
	f.declare(cmd)
	cmd.Flags().Lookup("keep").Hidden = true // an entry of the file says it for itself
	cmd.Flags().StringVarP(&file, "file", "f", "tunnox.yaml", "`file` with the tunnels")
	cmd.Flags().BoolVar(&check, "check", false, "only read the file, and tell what is wrong with it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.keep {
			return usageError("--keep: say keep: true for each tunnel of the file that is to stay")
		}
		u := &upper{f: f, file: file, running: map[string]*upped{}}
		entries, err := u.read()
		if err != nil {
			return codedError{exitUsage, err}
		}
		if check {
			_, err := fmt.Fprintf(s.stdout, "%s: %d tunnels, nothing wrong with it\n", file, len(entries))
			return err
		}
		return u.run(cmd.Context(), entries)
	}
	return cmd
}

// upper holds the tunnels of a file.
type upper struct {
	f       *foreground
	file    string
	text    []byte // as it was read last
	running map[string]*upped
	live    *live // shows them; nil: plain lines do
	tasks   sync.WaitGroup
}

// upped is one of them.
type upped struct {
	entry entry
	end   context.CancelFunc
	over  chan struct{}
	shown *liveTunnel // nil without a view
}

// read reads the file.
func (u *upper) read() (map[string]entry, error) {
	text, err := os.ReadFile(u.file)
	if err != nil {
		return nil, fmt.Errorf("read the tunnels: %w\n  name another file with --file; tunnox up --help shows what stands in one", err)
	}
	u.text = text
	return parseTunnels(u.file, text)
}

func (u *upper) run(ctx context.Context, entries map[string]entry) error {
	state, err := stateDir(u.f.surroundings, u.f.state)
	if err != nil {
		return err
	}
	u.f.state = state
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if u.live = u.f.live(stop); u.live != nil {
		u.f.stderr = u.live
		defer u.live.close()
	}
	// The agent is there before the tunnels, so that none of them is it: it would end
	// with that one.
	runner, err := u.f.runner(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	defer func() { _ = runner.stop() }()
	defer u.tasks.Wait()
	asked := make(chan os.Signal, 1)
	if len(reloadSignals) > 0 { // none would be all
		signal.Notify(asked, reloadSignals...)
		defer signal.Stop(asked)
	}
	tick := time.NewTicker(fileLook)
	defer tick.Stop()
	u.settle(ctx, entries)
	for {
		select {
		case <-asked:
			u.reload(ctx)
		case <-tick.C:
			if text, err := os.ReadFile(u.file); err == nil && !bytes.Equal(text, u.text) {
				u.reload(ctx)
			}
		case <-runner.over: // of an agent of another program nobody needs to know
			if stopped := runner.stop(); stopped != nil {
				return stopped
			}
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// reload reads the file again. With a fault in it everything goes on as it is.
func (u *upper) reload(ctx context.Context) {
	entries, err := u.read()
	if err != nil {
		fmt.Fprintf(u.f.stderr, "tunnox: the tunnels stay as they are:\n%s\n", eachLine(err.Error()))
		return
	}
	u.settle(ctx, entries)
}

// settle ends what is not wanted any more, and then begins what is: an address may go
// from one to another.
func (u *upper) settle(ctx context.Context, entries map[string]entry) {
	for name, t := range u.running {
		if e, ok := entries[name]; ok && t.entry.same(e) {
			select {
			case <-t.over: // refused before; once more, since somebody has looked at the file
			default:
				continue
			}
		}
		t.end()
		<-t.over
		delete(u.running, name)
		if t.shown != nil {
			u.live.remove(t.shown)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if u.running[name] == nil {
			u.begin(ctx, name, entries[name])
		}
	}
}

func (u *upper) begin(ctx context.Context, name string, e entry) {
	ctx, end := context.WithCancel(ctx)
	t := &upped{entry: e, end: end, over: make(chan struct{})}
	u.running[name] = t
	if u.live != nil {
		t.shown = u.live.tunnel(name)
	}
	u.tasks.Go(func() {
		defer close(t.over)
		defer end()
		f := *u.f
		wanted, keep, err := e.spec(name, f.serverWord)
		f.keep = keep
		switch {
		case err != nil:
		case t.shown != nil:
			err = f.heldLive(ctx, u.live, t.shown, wanted)
		default:
			err = f.hold(ctx, wanted.wish, f.shownAs(name, wanted.ready))
		}
		switch {
		case err == nil || errors.Is(err, context.Canceled):
		case t.shown != nil:
			u.live.failed(t.shown, err)
		default:
			fmt.Fprintf(f.stderr, "tunnox: %s: %s\n", oneLine(name), eachLine(err.Error()))
		}
	})
}
