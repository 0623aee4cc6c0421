package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
)

// exitTaken is the status of a program in the foreground that wants a name, a port or
// an address which somebody else has.
const exitTaken = 4

const foregroundCodes = `Exit codes: 0 ended as asked, 1 failure, 2 usage, 3 refused for good (the message
gives the reason), 4 the name, port or address is in use.`

// foreground is the common part of the programs that hold a tunnel in the foreground.
// If an agent runs on this machine, that agent holds the tunnel. Otherwise the program
// runs an agent itself, which also holds the tunnels of later programs. So one identity
// has one agent.
type foreground struct {
	surroundings
	state   string
	servers []string
	pins    []string
	json    bool
	keep    bool
	timeout time.Duration
	plain   bool         // lines as in a pipe, on a terminal too
	log     *slog.Logger // of an agent that runs here; nil: errors go to standard error
	// attached is told which agent holds the tunnel from now on. It may be nil.
	attached func(agent *http.Client)
}

func (f *foreground) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.state, "state", "", "`directory` with this machine's identity (environment: TUNNOX_STATE; default "+defaultStateDir(f.surroundings)+")")
	flags.BoolVar(&f.json, "json", false, "print one line of JSON when the tunnel is ready")
	flags.BoolVar(&f.plain, "plain", false, "print plain lines, as in a pipe, on a terminal too")
	flags.BoolVar(&f.keep, "keep", false, "keep the tunnel when this program ends; tunnox agent serves it from then on")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "the longest `time` until the tunnel is ready")
}

// declareServer adds the flags of commands that need no account.
func (f *foreground) declareServer(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.servers, "server", nil, "`address` of a server that this machine has not joined, host:port#sha256:..., or host:port with --pin")
	cmd.Flags().StringSliceVar(&f.pins, "pin", nil, "`fingerprint` of the server's key, sha256:...")
}

// handOverTries is how often a listener is tried that the agent before may still have:
// for about five seconds.
const handOverTries = 12

// errAgentGone says that the agent which held the tunnel is not there any more.
var errAgentGone = errors.New("the agent of this machine has ended")

// hold holds a tunnel until ctx ends, through whatever happens to agents and servers.
// show is told what happens to it.
func (f *foreground) hold(ctx context.Context, wish agent.Tunnel, show func(agent.TunnelNews) error) error {
	if f.timeout <= 0 {
		return usageError("--timeout %v must be more than 0, for example 30s", f.timeout)
	}
	wish.Keep = f.keep
	if err := f.settle(); err != nil {
		return err
	}
	ready := false
	noted := func(news agent.TunnelNews) error {
		if news.Event == "ready" {
			ready, wish.Resume = true, &news
		}
		return show(news)
	}
	var again wait.Backoff
	for last := false; ; {
		bound := time.Duration(0)
		if !ready {
			bound = f.timeout
		}
		err := f.attempt(ctx, wish, bound, noted)
		coded, _ := errors.AsType[codedError](err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && ready && !last:
			last = true // once more, to end what no agent holds at this moment
			continue
		case ctx.Err() != nil:
			return ended(ctx, err)
		case errors.Is(err, errAgentGone):
			again.Reset()
		case ready && coded.code == exitTaken && again.Tries() < handOverTries: // the agent that is about to end has the listener
		default:
			return err
		}
		again.Wait(ctx)
	}
}

// attempt holds the tunnel with one agent. When ctx has ended it only ends the tunnel.
func (f *foreground) attempt(ctx context.Context, wish agent.Tunnel, bound time.Duration, show func(agent.TunnelNews) error) error {
	looking := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		looking, cancel = context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
	}
	runner, err := f.runner(looking)
	if err != nil {
		return err
	}
	if f.attached != nil {
		f.attached(runner.http)
	}
	err = runner.hold(ctx, wish, bound, show)
	if stopped := runner.stop(); stopped != nil && (err == nil || errors.Is(err, errAgentGone)) {
		return stopped
	}
	return err
}

// ended gives nil where a program was told to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, errAgentGone)) {
		return nil
	}
	return err
}

// settle finds the identity that holds the tunnel.
func (f *foreground) settle() error {
	named := f.state != "" || f.variable("TUNNOX_STATE") != "" || f.contextFlag() != "" || f.variable("TUNNOX_CONTEXT") != ""
	at, err := f.place(f.state)
	if err != nil {
		return err
	}
	f.state = at.dir
	if len(f.servers) == 0 {
		return nil
	}
	if !named { // any of the servers that this machine has joined may be it
		addresses, _, err := parseServers(f.servers)
		if err != nil {
			return codedError{exitUsage, err}
		}
		if p, found, err := f.sameServer(addresses, nil); err == nil && found {
			f.state = p.dir
		}
	}
	return f.elsewhere()
}

// elsewhere is for a server that this machine need not have joined: where it has, its
// identity is used, and otherwise there is an anonymous one for that server alone.
func (f *foreground) elsewhere() error {
	addresses, pins, err := parseServers(f.servers)
	var wanted transport.DialConfig
	if err == nil {
		wanted, err = (&agentOptions{surroundings: f.surroundings, pins: f.pins}).dialConfig(pins)
	}
	if err != nil {
		return codedError{exitUsage, err}
	}
	kept := &agent.State{File: filepath.Join(f.state, "client.json")}
	if _, err := kept.Load(); err != nil {
		return err
	}
	if kept.Joined != nil {
		for _, address := range addresses {
			for _, joined := range kept.Joined.Servers {
				if address != joined {
					continue
				}
				if len(wanted.Pins) > 0 && len(kept.Joined.Pins) > 0 && !slices.ContainsFunc(wanted.Pins, func(pin transport.Pin) bool { return slices.Contains(kept.Joined.Pins, pin.String()) }) {
					return usageError("the fingerprint is not that of %s, which this machine has joined: leave it out, or ask whose it is", oneLine(address))
				}
				f.servers, f.pins = nil, nil
				return nil
			}
		}
	}
	if len(addresses) == 0 {
		return usageError("--server is empty")
	}
	f.state = filepath.Join(f.state, "at-"+strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|[]`, r) {
			return '_'
		}
		return r
	}, addresses[0]))
	return nil
}

// runner reaches the agent that holds the tunnel.
type runner struct {
	http *http.Client
	stop func() error // ends the agent that was started here, and gives the reason
	why  func() error // why the agent is not connected; nil: the log of another program has the reason
	// hopeless is closed when the agent cannot connect before somebody changes a setting.
	hopeless <-chan struct{}
	over     <-chan struct{}
}

// runner finds the agent of this machine, or starts one here.
func (f *foreground) runner(ctx context.Context) (*runner, error) {
	const tries, pause = 100, 100 * time.Millisecond
	var held error
	for range tries { // another program may be starting or ending
		if path := f.answering(ctx); path != "" {
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}}}
			return &runner{http: client, stop: func() error { client.CloseIdleConnections(); return nil }}, nil
		}
		r, err := f.own()
		if !errors.Is(err, errHeld) {
			return r, err
		}
		held = err
		if !wait.For(ctx, pause) {
			return nil, ctx.Err()
		}
	}
	return nil, held
}

// answering gives the socket of an agent that answers, "" when none does.
func (f *foreground) answering(ctx context.Context) string {
	path := socketPath(f.state, 0)
	if others, err := filepath.Glob(filepath.Join(f.state, "agent-*.sock")); err == nil && len(others) == 1 {
		if _, err := os.Stat(path); err != nil {
			path = others[0] // an agent with a given identity
		}
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return ""
	}
	_ = conn.Close()
	return path
}

// own starts an agent in this process.
func (f *foreground) own() (*runner, error) {
	log := f.log
	if log == nil {
		log = slog.New(&plainHandler{out: f.stderr, level: slog.LevelError})
	}
	o := &agentOptions{surroundings: f.surroundings, lanes: true, servers: f.servers, pins: f.pins, state: f.state,
		sessions: agent.DefaultSessions, transport: reach.Auto, name: hostname(), logLevel: "error", logFormat: "text"}
	kept := &agent.State{File: filepath.Join(f.state, "client.json")}
	if len(f.servers) == 0 {
		before, err := kept.Load()
		if err != nil {
			return nil, err
		}
		if kept.Joined == nil {
			text := "this machine has not joined a server: run tunnox join CODE first"
			if before.ClientID != 0 {
				text = "the server of this machine is not known: run tunnox agent --server ... on this machine, or run tunnox join CODE"
			}
			return nil, codedError{exitUsage, errors.New(text)}
		}
	}
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	release, err := lockState(f.state, 0, log)
	if err != nil {
		return nil, err
	}
	if config.Sealing, err = o.sealing(); err != nil {
		release()
		return nil, err
	}
	dialled := &dialled{dial: config.Dial, tries: o.way.Tries, servers: len(config.Servers), hopeless: make(chan struct{})}
	config.Dial, config.Logger = dialled.do, log
	a, err := agent.New(config)
	if err != nil {
		release()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	inside := newInside()
	server := &http.Server{Handler: a.Local(), ReadHeaderTimeout: 5 * time.Second}
	socket := serveLocal(socketPath(f.state, 0), a.Local(), log)
	over := make(chan struct{})
	var runErr error
	var tasks sync.WaitGroup
	tasks.Go(func() { defer close(over); runErr = a.Run(ctx) })
	tasks.Go(func() { _ = server.Serve(inside) })
	client := &http.Client{Transport: &http.Transport{DialContext: inside.dial}}
	stop := sync.OnceValue(func() error {
		cancel()
		<-over
		socket()
		_ = server.Close()
		_ = o.inspector.Close()
		client.CloseIdleConnections()
		tasks.Wait()
		release()
		if _, refused := errors.AsType[*agent.EndedError](runErr); refused {
			return codedError{exitRefused, runErr}
		}
		return runErr
	})
	return &runner{http: client, stop: stop, over: over, hopeless: dialled.hopeless, why: func() error {
		if unverified := dialled.unverified(config.Servers); unverified != nil {
			return unverified
		}
		return fmt.Errorf("cannot reach %s: %w\n  is the server running, and can this machine reach it? Try again with the same command", oneLine(strings.Join(config.Servers, ", ")), dialled.why())
	}}, nil
}

// hold asks the agent to hold the tunnel, and follows what it says. When ctx ends it
// ends the tunnel. bound is how long it may take to be ready; 0 = for ever.
func (r *runner) hold(ctx context.Context, wish agent.Tunnel, bound time.Duration, show func(agent.TunnelNews) error) error {
	body, err := json.Marshal(wish)
	if err != nil {
		return err
	}
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends after the tunnel has been ended in order
	defer cancel()
	req, err := http.NewRequestWithContext(asking, http.MethodPost, "http://agent/tunnels", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answered := make(chan struct{})
	stopWaiting := context.AfterFunc(ctx, func() {
		select {
		case <-answered:
			return
		default:
		}
		if wish.Resume != nil { // another agent held it, and it is to be ended
			patience := time.NewTimer(endTime)
			defer patience.Stop()
			select {
			case <-answered:
				return
			case <-patience.C:
			}
		}
		cancel() // there is nothing to end yet
	})
	defer stopWaiting()
	var late *time.Timer
	if bound > 0 {
		late = time.AfterFunc(bound, cancel)
		defer late.Stop()
		go func() {
			select {
			case <-r.hopeless: // for ever where there is no such channel
				cancel()
			case <-asking.Done():
			}
		}()
	}
	resp, err := r.http.Do(req)
	switch {
	case err != nil && ctx.Err() != nil && asking.Err() != nil:
		return context.Canceled
	case err != nil && asking.Err() != nil:
		return r.offline()
	case err != nil:
		return errAgentGone
	}
	close(answered)
	if late != nil {
		late.Stop()
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r.refusal(resp)
	}
	news := make(chan agent.TunnelNews)
	go func() {
		defer close(news)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var n agent.TunnelNews
			if json.Unmarshal(lines.Bytes(), &n) != nil {
				return
			}
			select {
			case news <- n:
			case <-asking.Done():
				return
			}
		}
	}()
	var id int64
	var overdue <-chan time.Time
	done := ctx.Done()
	for {
		select {
		case n, ok := <-news:
			if !ok {
				return errAgentGone
			}
			if n.Event == "ready" {
				if id = n.ID; ctx.Err() != nil {
					return r.end(id)
				}
			}
			if n.Event == "ended" {
				return codedError{exitRefused, errors.New(oneLine(n.Message))}
			}
			if err := show(n); err != nil {
				return err
			}
		case <-done:
			if id != 0 {
				return r.end(id)
			}
			patience := time.NewTimer(endTime) // it is about to be ready
			defer patience.Stop()
			done, overdue = nil, patience.C
		case <-overdue:
			return nil
		}
	}
}

// endTime bounds how long the end of a tunnel may take. Where the server cannot be
// reached it ends what is there within a minute by itself.
const endTime = 3 * time.Second

func (r *runner) end(id int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, fmt.Sprintf("http://agent/tunnels/%d", id), http.NoBody)
	if err != nil {
		return err
	}
	if resp, err := r.http.Do(req); err == nil {
		_ = resp.Body.Close()
	}
	return nil
}

func (r *runner) offline() error {
	if r.why != nil {
		return r.why()
	}
	return errors.New("the agent of this machine is not connected to its server: see its log and tunnox agent status")
}

// refusal says why there is no tunnel, with the exit code that scripts go by.
func (r *runner) refusal(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return errAgentGone
	}
	p := &problem{}
	if json.Unmarshal(b, p) != nil {
		return fmt.Errorf("the agent of this machine answered %s: is it another version?", resp.Status)
	}
	switch p.Code {
	case "offline", "no_answer":
		if r.over != nil {
			select {
			case <-r.over:
				return errAgentGone // the agent itself gives the reason
			default:
			}
		}
		return r.offline()
	case "listener_taken", "port_taken", "host_taken", "address_in_use":
		return codedError{exitTaken, errors.New(oneLine(p.Detail))}
	case "invalid":
		return codedError{exitUsage, errors.New(oneLine(p.Detail))}
	case "store_unavailable", "internal":
		return errors.New(oneLine(p.Detail))
	}
	if resp.StatusCode == http.StatusNotFound {
		return errors.New("the agent that runs on this machine is older than this program and holds no tunnels: restart it with this version")
	}
	return codedError{exitRefused, fmt.Errorf("%s [%s]", oneLine(p.Detail), oneLine(p.Code))}
}

// inside is a listener that only this process reaches.
type inside struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInside() *inside { return &inside{conns: make(chan net.Conn), closed: make(chan struct{})} }

// Accept implements [net.Listener].
func (l *inside) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *inside) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

// Addr implements [net.Listener].
func (l *inside) Addr() net.Addr { return &net.UnixAddr{Name: "inside", Net: "unix"} }

func (l *inside) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
