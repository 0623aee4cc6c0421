package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/daemon"
	"github.com/tunnox-net/tunnox/inspector"
	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
)

// agentOptions are what an agent was told: by flags, or by TUNNOX_ variables of
// the same names, which suit a service.
type agentOptions struct {
	surroundings
	servers      []string
	sessions     int
	pins         []string
	ca           string
	transport    string
	state        string
	clientID     int64
	authCodeFile string
	allow        []string
	only         []string
	denyLoopback bool
	policyFile   string
	ruled        *policyFile // of policyFile, nil without one
	allowListen  []string
	name         string
	logLevel     string
	logFormat    string

	inspector *inspector.Server // made by config
	way       *reach.Dialer     // the same

	peerKeys []string
	peerOnly bool
	peers    agent.PinnedKeys // of peerKeys
	e2eOnly  bool
	lanes    bool
}

const agentLong = `Run the agent. It connects to a server, opens the listeners of its client's
mappings, and dials the services of mappings that lead to this machine.

If this machine has joined a server with tunnox join, no flags are necessary.
Otherwise, without --client-id, the agent is anonymous: at the first start the server
gives it an id. The agent saves the id and its credential in client.json of --state,
and uses them from then on. With --client-id the agent proves this client with its
auth code. Give the code in a file or in TUNNOX_AUTH_CODE, never as an argument.

The agent always verifies the server: by the system's roots, by --ca, or by the --pin
of the server's join line. Without --allow the agent dials loopback only; --only
restricts that too. --policy FILE has rules in place of them:

  rules:                            # the first that matches decides
    - deny: 10.0.0.13:*             # what no rule allows is refused, loopback too
    - allow: [10.0.0.0/8:443, db.internal:5432, 127.0.0.0/8:*]
      protocols: [tcp, http]        # of the mapping; left out: all
      hours: mon-fri 08:00-18:00    # of this machine's clock; left out: always
    - allow: unix:/run/app.sock     # or file:/srv/www, with all below it

A changed file holds at once: connections that it does not allow end. If it has a
fault, the log tells its line, and the rules stay as they were. Hours are for the
beginning of connections.

For mappings with the encryption e2e the agent has a key in --state, which it announces
to its server. It takes the keys of others from there with proofs that it verifies;
--peer-key names them by hand instead, and with --peer-key-only no other keys count.
With --e2e-only it takes part in no other connections.

The agent listens on ports of loopback from 1024. The server cannot make it listen
elsewhere: --allow-listen names the other addresses.

The agent tries TLS, QUIC and WebSocket, and uses the first that works (--transport).
If a proxy breaks TLS, or a reverse proxy stands before the server, only WebSocket
works. --pin is valid there too, because a second TLS connection inside the WebSocket
ends at the server. The proxy itself is verified by the system's roots, or by --ca.

If a cluster has several forwarders, the agent is connected to two of them
(--sessions), so that new connections work when one of them ends. One address is
enough: the server sends the others.

While the agent runs, "tunnox agent status", "mapping" and "redeem" control it, over a
socket in --state that only its owner can open.

HTTPS_PROXY or ALL_PROXY names a proxy for the connection to the server: http://,
https:// or socks5://HOST:PORT, with NAME:PASSWORD@ before the host if the proxy needs
it. NO_PROXY lists servers that the agent reaches without the proxy.

Every flag is also a TUNNOX_ variable, for example TUNNOX_CLIENT_ID.

The agent runs until it gets a signal to end, or until the server refuses it for good.
If the server cannot be reached, or has another key than expected, the agent tries
again, with pauses of up to half a minute; the log has the reason. If another agent
with the same identity connects, for example from a copy of the state directory, this
agent pauses for five minutes or more, and the log names the other agent.

Exit codes: 0 ended by a signal, 1 failure, 2 usage, 3 refused by the server for good
(the message gives the reason).`

func agentCommand(s surroundings) *cobra.Command {
	o := &agentOptions{surroundings: s}
	cmd := &cobra.Command{
		Use:     "agent",
		Short:   "Run an agent on this machine",
		Long:    agentLong,
		Example: "  tunnox agent\n  tunnox agent --server tunnox.example.org:8080 --pin sha256:... --allow 10.0.0.5:5432",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.servers, "server", nil, "`address` of the server, host:port, or host:port#sha256:... with its pin; separate several by commas, or repeat the flag")
	f.IntVar(&o.sessions, "sessions", agent.DefaultSessions, "the largest `number` of forwarders that the agent is connected to at the same time")
	f.StringSliceVar(&o.pins, "pin", nil, "`fingerprint` of the server's key, sha256:..., from its join line")
	f.StringVar(&o.ca, "ca", "", "`file` with the certificates (PEM) that sign the server's certificate; with --pin, the certificate of a proxy before the server")
	f.StringVar(&o.transport, "transport", reach.Auto, "`way` to the server: "+transportNames()+"; an address such as wss://HOST:PORT needs no --transport")
	f.StringVar(&o.state, "state", "", "`directory` for client.json and the socket for commands (default "+defaultStateDir(s)+")")
	f.Int64Var(&o.clientID, "client-id", 0, "`id` of a client that was created for this machine")
	f.StringVar(&o.authCodeFile, "auth-code-file", "", "`file` with the client's auth code (- = standard input; environment: TUNNOX_AUTH_CODE, the code itself)")
	f.StringSliceVar(&o.allowListen, "allow-listen", nil, "more addresses where the agent may listen, beside ports of loopback from 1024: `HOST:PORT`, HOST:FROM-TO, CIDR:PORT or *")
	f.BoolVar(&o.denyLoopback, "deny-loopback", false, "do not dial services of this machine, except those of --allow")
	f.StringSliceVar(&o.only, "only", nil, "dial only these services, and no other service of this machine either; same form as --allow")
	f.StringSliceVar(&o.allow, "allow", nil, "services that may be dialled: `HOST:PORT`, HOST:FROM-TO, CIDR:PORT or *; link-local and metadata addresses, unix:PATH (a socket) and file:PATH (a directory) need an entry of their own")
	f.StringVar(&o.policyFile, "policy", "", "`file` with the rules of what may be dialled, read again when it changes; in place of --allow, --only and --deny-loopback")
	f.BoolVar(&o.lanes, "lanes", true, "let the bulk of connections with the encryption e2e go over TCP connections of its own to the server")
	f.StringSliceVar(&o.peerKeys, "peer-key", nil, "key of the agent at the other end of mappings with the encryption e2e, in place of the proven one: `CLIENT=KEY`, from \"tunnox agent key\" there")
	f.BoolVar(&o.peerOnly, "peer-key-only", false, "believe no keys but those of --peer-key, whatever the server proves")
	f.BoolVar(&o.e2eOnly, "e2e-only", false, "take part only in connections that are encrypted from end to end")
	f.StringVar(&o.name, "name", hostname(), "`name` that users see, sent when an anonymous agent registers")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.readVariables(cmd.Flags()); err != nil {
			return codedError{exitUsage, err}
		}
		return daemon.Under(serviceName, func(stop <-chan struct{}) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if stop != nil { // Windows ends its services so
				go func() {
					select {
					case <-stop:
						cancel()
					case <-ctx.Done():
					}
				}()
			}
			return o.run(ctx)
		})
	}
	cmd.AddCommand(claimCode(s), sealKeyCommand(s))
	cmd.AddCommand(localCommands(s)...)
	return cmd
}

// readVariables completes what the command line left open.
func (o *agentOptions) readVariables(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "TUNNOX_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if f.Name == "state" || f.Name == "context" {
			return // the one of these that somebody wrote holds, and stateDir knows which
		}
		if value := o.variable(name); value != "" && !f.Changed {
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	return errors.Join(errs...)
}

func (o *agentOptions) run(ctx context.Context) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	// Before the identity is read: two that begin at once would each make one.
	release, err := lockState(o.state, o.clientID, config.Logger)
	if err != nil {
		return err
	}
	defer release()
	defer func() { _ = o.inspector.Close() }()
	if config.Sealing, err = o.sealing(); err != nil {
		return err
	}
	config.SealedOnly = o.e2eOnly
	config.NoLanes = !o.lanes
	config.Stirred = reach.Changes(ctx)
	news := make(chan struct{}, 1)
	config.Changed = func() {
		select {
		case news <- struct{}{}:
		default: // it is to be looked already
		}
	}
	config.Online = func(int64, string) { config.Changed() }
	a, err := agent.New(config)
	if err != nil {
		return err
	}
	stop := serveLocal(socketPath(o.state, o.clientID), a.Local(), config.Logger)
	defer stop()
	if o.logFormat == "text" { // in a log for programs there are no other lines
		ctx, cancel := context.WithCancel(ctx)
		announced := o.announce(ctx, a.Local(), news)
		defer func() { cancel(); <-announced }()
	}
	if o.ruled != nil {
		var following sync.WaitGroup
		defer following.Wait()
		watching, stop := context.WithCancel(ctx)
		defer stop()
		following.Go(func() { o.ruled.follow(watching, a.SetPolicy, config.Logger) })
	}
	err = a.Run(ctx)
	if _, refused := errors.AsType[*agent.EndedError](err); refused {
		return codedError{exitRefused, err}
	}
	return err
}

// announceAfter is how long news are collected: a server assigns many listeners at once.
const announceAfter = 200 * time.Millisecond

// announce prints what is ready on standard output, with each change of it until ctx
// ends; the channel is closed then.
func (o *agentOptions) announce(ctx context.Context, local http.Handler, news <-chan struct{}) <-chan struct{} {
	inside := newInside()
	server := &http.Server{Handler: local, ReadHeaderTimeout: 5 * time.Second}
	client := &http.Client{Transport: &http.Transport{DialContext: inside.dial}}
	said := &announcer{f: &localFlags{surroundings: o.surroundings}, c: &restClient{base: "http://agent", timeout: machineLimit, http: client}}
	over := make(chan struct{})
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(inside) })
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			select {
			case <-news:
				if wait.For(ctx, announceAfter) {
					said.announce(ctx)
				}
			case <-ctx.Done():
			}
		}
		_ = server.Close()
		client.CloseIdleConnections()
		tasks.Wait()
	}()
	return over
}

// config checks the options, all of them, and opens what they name.
func (o *agentOptions) config() (agent.Config, error) {
	var faults []error
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	state, err := stateDir(o.surroundings, o.state)
	if err != nil {
		return agent.Config{}, err
	}
	o.state = state
	kept := &agent.State{File: filepath.Join(o.state, "client.json")}
	if len(o.servers) == 0 && o.clientID == 0 {
		fault(o.asJoined(kept))
	}
	servers, pins, err := parseServers(o.servers)
	fault(err)
	if len(servers) == 0 && err == nil {
		fault(errors.New("--server is missing, and this machine has not joined a server: run tunnox join CODE, or give the flags of the server's join line"))
	}
	if o.sessions < 1 || o.sessions > agent.MaxSessions {
		fault(fmt.Errorf("--sessions %d must be 1 to %d", o.sessions, agent.MaxSessions))
	}
	if length := utf8.RuneCountInString(o.name); length > longestName {
		fault(fmt.Errorf("--name has %d characters; the maximum is %d", length, longestName))
	}
	verify, err := o.dialConfig(pins)
	fault(err)
	way, err := dialer(o.surroundings, o.transport, verify)
	fault(err)
	policy, err := o.policy()
	fault(err)
	listening, err := agent.ParseListening(words(o.allowListen))
	fault(err)
	o.peers, err = parsePeerKeys(words(o.peerKeys))
	fault(err)
	identity, err := o.identity()
	fault(err)
	log, err := o.logger()
	fault(err)
	if len(faults) > 0 {
		return agent.Config{}, codedError{exitUsage, errors.Join(faults...)}
	}
	o.way = way
	o.inspector = inspector.NewServer(inspector.DefaultAddress, log)
	return agent.Config{
		Inspector: watching{o.inspector},
		Servers:   servers,
		Sessions:  o.sessions,
		Dial:      way.Dial,
		Identity:  identity,
		State:     kept,
		Policy:    policy,
		Listening: listening,
		Name:      o.name,
		Version:   shortVersion(),
		Logger:    log,
		Tries:     triesOf(way),
	}, nil
}

// policy gives what may be dialled.
func (o *agentOptions) policy() (agent.Policy, error) {
	if o.policyFile != "" {
		if len(o.allow) > 0 || len(o.only) > 0 || o.denyLoopback {
			return agent.Policy{}, errors.New("--policy excludes --allow, --only and --deny-loopback: the file has all the rules")
		}
		o.ruled = &policyFile{name: o.policyFile}
		policy, err := o.ruled.read()
		if err != nil {
			err = fmt.Errorf("--policy: %w", err)
		}
		return policy, err
	}
	if len(o.only) > 0 {
		if len(o.allow) > 0 {
			return agent.Policy{}, errors.New("--only and --allow exclude each other: --only names all services that may be dialled")
		}
		policy, err := agent.ParsePolicy(words(o.only))
		if err != nil {
			err = fmt.Errorf("--only: %w", err)
		}
		return policy.WithoutLoopback(), err
	}
	policy, err := agent.ParsePolicy(words(o.allow))
	if o.denyLoopback {
		policy = policy.WithoutLoopback()
	}
	return policy, err
}

// asJoined completes the options with where this machine has joined.
func (o *agentOptions) asJoined(kept *agent.State) error {
	if _, err := kept.Load(); err != nil || kept.Joined == nil {
		return err
	}
	o.servers = kept.Joined.Servers
	if len(o.pins) == 0 && o.ca == "" {
		o.pins = kept.Joined.Pins
	}
	return nil
}

// discardLog is for what says all it has to say in its error.
var discardLog = slog.New(slog.DiscardHandler)

// dialConfig says how the server is verified. There is no way to skip that.
// pins are those that stand behind addresses of --server.
func (o *agentOptions) dialConfig(pins []transport.Pin) (transport.DialConfig, error) {
	config := transport.DialConfig{Pins: pins}
	for _, text := range words(o.pins) {
		pin, err := transport.ParsePin(text)
		if err != nil {
			return config, fmt.Errorf("--pin %q: %w", text, err)
		}
		config.Pins = append(config.Pins, pin)
	}
	if o.ca != "" {
		roots, err := transport.LoadRoots(o.ca)
		if err != nil {
			return config, fmt.Errorf("--ca: %w", err)
		}
		if len(config.Pins) > 0 {
			config.Front = roots // the pin says who the server is; the authority's is what stands before it
		} else {
			config.Roots = roots
		}
	}
	return config, nil
}

// identity is the one that was given; the zero value is one of the state
// directory or a new one.
func (o *agentOptions) identity() (agent.Identity, error) {
	code := o.variable("TUNNOX_AUTH_CODE")
	if o.authCodeFile != "" {
		text, err := o.readSecret(o.authCodeFile)
		if err != nil {
			return agent.Identity{}, fmt.Errorf("--auth-code-file: %w", err)
		}
		code = text
	}
	switch {
	case o.clientID < 0:
		return agent.Identity{}, fmt.Errorf("--client-id %d must be a positive number", o.clientID)
	case o.clientID == 0 && code == "":
		return agent.Identity{}, nil
	case o.clientID == 0:
		return agent.Identity{}, errors.New("an auth code needs --client-id, which is missing")
	case code == "":
		return agent.Identity{}, fmt.Errorf("--client-id %d needs its auth code: --auth-code-file or TUNNOX_AUTH_CODE", o.clientID)
	}
	credential, err := wire.ParseAuthCode(code)
	if err != nil {
		return agent.Identity{}, fmt.Errorf("the auth code of client %d: %w", o.clientID, err)
	}
	return agent.Identity{ClientID: o.clientID, Credential: credential}, nil
}

func (o *agentOptions) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q is not one of debug, info, warn, error", o.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(o.stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(o.stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q is not one of text, json", o.logFormat)
}

// defaultStateDir follows the XDG base directories where there are such.
func defaultStateDir(s surroundings) string {
	if dir := s.variable("XDG_STATE_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored, says XDG
		return filepath.Join(dir, "tunnox")
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		if dir, err := os.UserConfigDir(); err == nil {
			return filepath.Join(dir, "tunnox")
		}
	}
	home := s.variable("HOME")
	if home == "" {
		return "tunnox-state" // a service without a home: its working directory
	}
	return filepath.Join(home, ".local", "state", "tunnox")
}

// longestName is how many characters the server takes as a client's name.
const longestName = 100

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // the name is for people; none is fine
	}
	return string([]rune(name)[:min(longestName, utf8.RuneCountInString(name))])
}
