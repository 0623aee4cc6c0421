package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
)

// tunnelCommands are those that hold tunnels in the foreground.
func tunnelCommands(s surroundings) []*cobra.Command {
	return []*cobra.Command{httpCommand(s), publicCommand(s, "tcp", "TCP", "22"), publicCommand(s, "udp", "UDP", "34197"),
		tlsCommand(s), exposeCommand(s), getCommand(s), forwardCommand(s), socksCommand(s), upCommand(s)}
}

// oneArgument wants just what the usage names.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError("want %s: %s", what, cmd.UseLine())
		}
		return nil
	}
}

func publicCommand(s surroundings, protocol, called, example string) *cobra.Command {
	f := &foreground{surroundings: s}
	var port int
	var name string
	also := ""
	if protocol == "tcp" {
		also = ", or\nunix:PATH for a unix socket"
	}
	cmd := &cobra.Command{Use: protocol + " SERVICE", Short: "Give a " + called + " service of this machine a public address",
		Long: `Give a ` + called + ` service of this machine a public address, for as long as this program
runs. SERVICE is a port of this machine, or HOST:PORT that this machine reaches` + also + `.

The server needs public ports: tunnoxd serve --public-ports FROM-TO.

` + foregroundCodes,
		Example: "  tunnox " + protocol + " " + example + "\n  tunnox " + protocol + " 192.168.1.10:" + example + " --port 20005",
		Args:    oneArgument("the service, a port such as " + example + " or HOST:PORT")}
	f.declare(cmd)
	cmd.Flags().IntVar(&port, "port", 0, "public `port` to have; 0 = one is chosen")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	rules := ruleFlags(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := publicSpec(protocol, args[0], "", port)
		if err != nil {
			return err
		}
		visitors, err := rules()
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name).ruled(visitors))
	}
	return cmd
}

func httpCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var site website
	var name string
	inspect := false
	cmd := &cobra.Command{Use: "http SERVICE", Short: "Give a web service, or a directory, of this machine a public URL",
		Long: `Give a web service of this machine a public URL, for as long as this program runs.
SERVICE is a port of this machine, HOST:PORT that this machine reaches, unix:PATH for a
unix socket, https://HOST:PORT or h2c://HOST:PORT for a service that speaks HTTPS (its
certificate is not verified) or HTTP/2 without TLS, or a directory: . or ./site or /srv/www. Of a directory visitors may read
the files, and nothing outside it. They see no files whose names begin with a dot
(--dot-files), and no list where there is no index.html (--listing).

The server needs public hosts: tunnoxd serve --http ADDRESS --base-domain DOMAIN.

` + foregroundCodes,
		Example: "  tunnox http 3000\n  tunnox http 192.168.1.10:8123 --host home\n  tunnox http ./site --listing\n" +
			"  tunnox http 3000 --basic-file passwords --allow 192.0.2.0/24 --host-header localhost:3000\n  tunnox http 3000 --inspect",
		Args: oneArgument("the service, a port such as 3000, HOST:PORT or a directory such as ./site")}
	f.declare(cmd)
	cmd.Flags().StringVar(&site.host, "host", "", "`label` under the server's base domain (default: one is chosen)")
	cmd.Flags().BoolVar(&site.files.listing, "listing", false, "of a directory: list what it has where there is no index.html")
	cmd.Flags().BoolVar(&site.files.dotFiles, "dot-files", false, "of a directory: show files whose names begin with a dot too")
	cmd.Flags().StringVar(&site.path, "path", "", "`path` of the host that the service has, with all below it (default: /)")
	cmd.Flags().BoolVar(&inspect, "inspect", false, "show the requests on a page of this machine, http://127.0.0.1:4040 or a port after it")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	rules := ruleFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		site.service = args[0]
		wanted, err := httpSpec(site)
		if err != nil {
			return err
		}
		if inspect {
			if err := wanted.inspected(); err != nil {
				return err
			}
		}
		visitors, err := rules()
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name).ruled(visitors))
	}
	return cmd
}

func tlsCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var host, name string
	cmd := &cobra.Command{Use: "tls SERVICE", Short: "Give a TLS service of this machine a public host, with its own certificate",
		Long: `Give a TLS service of this machine a public host, for as long as this program runs.
The server passes visitors' TLS through unopened, so that the service shows its own
certificate and nobody between reads anything. SERVICE is a port of this machine, or
HOST:PORT that this machine reaches.

The server needs public hosts over TLS: tunnoxd serve --https ADDRESS, or --tls
ADDRESS, with --base-domain DOMAIN.

` + foregroundCodes,
		Example: "  tunnox tls 443\n  tunnox tls 192.168.1.10:8443 --host home",
		Args:    oneArgument("the service, a port such as 443 or HOST:PORT")}
	f.declare(cmd)
	cmd.Flags().StringVar(&host, "host", "", "`label` under the server's base domain (default: one is chosen)")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	rules := ruleFlags(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := tlsSpec(args[0], host)
		if err != nil {
			return err
		}
		visitors, err := rules()
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name).ruled(visitors))
	}
	return cmd
}

func exposeCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var expires lifetime
	var uses uint32
	var name, encryption string
	cmd := &cobra.Command{Use: "expose SERVICE", Short: "Share a service of this machine with whoever you give the code",
		Long: `Share a service of this machine with whoever you give the code that this prints.
They run tunnox get CODE and have the service on a port of their machine; nothing
of it is public. It lasts as long as this program runs. SERVICE is a port of this
machine, HOST:PORT that this machine reaches, or unix:PATH for a unix socket.

` + foregroundCodes,
		Example: "  tunnox expose 5432\n  tunnox expose db.internal:5432 --uses 3 --expires 2d",
		Args:    oneArgument("the service, a port such as 5432 or HOST:PORT")}
	f.declare(cmd)
	f.declareServer(cmd)
	cmd.Flags().Var(&expires, "expires", "after so `long` the code is good no more, for example 36h or 2d (default 1h)")
	cmd.Flags().Uint32Var(&uses, "uses", 1, "how `often` the code is good")
	encryptionFlag(cmd, &encryption)
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if uses == 0 {
			return usageError("--uses 0: want 1 or more")
		}
		wanted, err := exposeSpec(args[0], "", uses, expires.seconds(), f.serverWord)
		if err == nil {
			wanted, err = wanted.encrypted(encryption)
		}
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name))
	}
	return cmd
}

// defaultExpiry is how long the code of tunnox expose is good.
const defaultExpiry = time.Hour

// seconds gives the time in which a code expires.
func (l *lifetime) seconds() uint32 {
	if *l == 0 {
		return uint32(defaultExpiry / time.Second)
	}
	return uint32(min(time.Duration(*l)/time.Second, 1<<31))
}

// serverWord is what whoever has not joined the server of this machine adds to a command.
func (f *foreground) serverWord() string {
	kept := &agent.State{File: filepath.Join(f.state, "client.json")}
	if _, err := kept.Load(); err != nil || kept.Joined == nil || len(kept.Joined.Servers) == 0 || len(kept.Joined.Pins) == 0 {
		return ""
	}
	return " --server " + oneLine(kept.Joined.Servers[0]+pinMark+kept.Joined.Pins[0])
}

func getCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var listen, name string
	cmd := &cobra.Command{Use: "get CODE", Short: "Have a service that somebody shared with you on a port of this machine",
		Long: `Have a service that somebody shares, with tunnox expose or tunnox share create, on a
port of this machine for as long as this program runs: the port that the service has
there, if it is free here, or another. - reads the code from standard input.

A machine that has not joined the server names it with --server.

` + foregroundCodes,
		Example: "  tunnox get 1234567890123-ABCDE-FGHIJ-KLMNO-PQRST\n  tunnox get - --listen 5433 --server tunnox.example.org:8080#sha256:...",
		Args:    oneArgument("the code")}
	f.declare(cmd)
	f.declareServer(cmd)
	cmd.Flags().StringVar(&listen, "listen", "", "`[address:]port` to listen on")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people (default: the share's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code := args[0]
		if code == "-" {
			text, err := s.readSecret("-")
			if err != nil {
				return err
			}
			code = text
		}
		wanted, err := getSpec(code, listen)
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name))
	}
	return cmd
}

func forwardCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var name, encryption string
	udp := false
	cmd := &cobra.Command{Use: "forward LISTEN CLIENT:SERVICE", Short: "Have a service of another machine of yours on a port of this one",
		Long: `Listen on this machine, for as long as this program runs, for a service of another
machine of yours. CLIENT is the other machine, by its name or id; SERVICE is a port
there, or HOST:PORT or unix:PATH that it reaches and allows. tunnox agent runs on that machine.

` + foregroundCodes,
		Example: "  tunnox forward 5433 datacentre:5432\n  tunnox forward 0.0.0.0:8080 office:printer.local:80",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError("want where to listen and what for: %s", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: f.completeClients}
	f.declare(cmd)
	cmd.Flags().BoolVar(&udp, "udp", false, "carry UDP instead of TCP")
	encryptionFlag(cmd, &encryption)
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		protocol := "tcp"
		if udp {
			protocol = "udp"
		}
		wanted, err := forwardSpec(protocol, args[0], args[1])
		if err == nil {
			wanted, err = wanted.encrypted(encryption)
		}
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name))
	}
	return cmd
}

func socksCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var listen, username, file, name, encryption string
	cmd := &cobra.Command{Use: "socks CLIENT", Short: "Have a SOCKS5 proxy on this machine that leads into the network of another machine of yours",
		Long: `Listen on this machine, for as long as this program runs, for programs that speak
SOCKS5, and connect them from another machine of yours. CLIENT is the other machine,
by its name or id. tunnox agent runs there and resolves names; it connects to that
machine alone, unless its --allow says more.

It listens on 127.0.0.1:1080, or on another port if that is in use. Whoever reaches the
listener can use it; --username with --password-file has programs prove who they are.

` + foregroundCodes,
		Example: "  tunnox socks datacentre\n  curl --socks5-hostname 127.0.0.1:1080 http://intranet/\n  tunnox socks office --listen 0.0.0.0:1080 --username ann --password-file password.txt",
		Args:    oneArgument("the other machine, by its name or id"), ValidArgsFunction: f.completeMachines}
	f.declare(cmd)
	flags := cmd.Flags()
	flags.StringVar(&listen, "listen", "", "`[address:]port` to listen on (default: 127.0.0.1:1080, or any free port)")
	flags.StringVar(&username, "username", "", "`name` that programs must give")
	flags.StringVar(&file, "password-file", "", "`file` with the password that programs must give; - reads it from standard input")
	flags.StringVar(&name, "name", "", "`name` for people")
	encryptionFlag(cmd, &encryption)
	cmd.MarkFlagsRequiredTogether("username", "password-file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := socksSpec(args[0], listen, username, func() (string, error) { return s.readSecret(file) })
		if err == nil {
			wanted, err = wanted.encrypted(encryption)
		}
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), wanted.named(name))
	}
	return cmd
}

// encryptionFlag adds the flag of tunnels that have an agent at both ends.
func encryptionFlag(cmd *cobra.Command, how *string) {
	cmd.Flags().StringVar(how, "encryption", "", "`how` connections are encrypted: e2e, from agent to agent, so that no server can read them, or transport (default transport)")
	_ = cmd.RegisterFlagCompletionFunc("encryption", cobra.FixedCompletions([]string{domain.EncryptionE2E, "transport"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is made above
}

// completeMachines offers the names alone.
func (f *foreground) completeMachines(cmd *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
	names, _ := f.completeClients(cmd, append(args, ""), to)
	if len(args) > 0 {
		names = nil
	}
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, ":")
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeClients offers the names of this user's machines: from the agent that runs here,
// or from the server's API with the login that is kept for it.
func (f *foreground) completeClients(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	local := &localFlags{surroundings: f.surroundings, state: f.state, timeout: 2 * time.Second}
	c, err := local.client()
	var p page
	if err == nil {
		p, err = c.list(cmd.Context(), "/clients", 0, 100)
	}
	if err != nil {
		for _, offered := range offerNames(cmd.Context(), (&apiFlags{surroundings: f.surroundings}).completer(cmd.Context()), "client") {
			name, _, _ := strings.Cut(offered, "\t")
			names = append(names, name+":")
		}
		return names, directive
	}
	for _, item := range p.Items {
		var client agent.LocalClient
		if json.Unmarshal(item, &client) == nil && client.Name != "" && !strings.ContainsAny(client.Name, " :\t\n") {
			names = append(names, oneLine(client.Name)+":")
		}
	}
	return names, directive
}

// shown prints what happens to a tunnel: that it is ready on standard output, and the
// rest beside it. With --json the first is one line of JSON, and the only one.
func (f *foreground) shown(ready func(agent.TunnelNews) (map[string]any, string)) func(agent.TunnelNews) error {
	return f.shownAs("", ready)
}

// shownAs is shown for one of several tunnels, which has a name.
func (f *foreground) shownAs(name string, ready func(agent.TunnelNews) (map[string]any, string)) func(agent.TunnelNews) error {
	last, before := "", ""
	if name != "" {
		before = oneLine(name) + ": "
	}
	return func(n agent.TunnelNews) error {
		switch n.Event {
		case "ready":
			value, text := ready(n)
			line := before + eachLine(text)
			if f.json {
				if name != "" {
					value["name"] = name
				}
				b, err := json.Marshal(value)
				if err != nil {
					return err
				}
				line = string(b)
			}
			if line == last {
				return nil // it is there again, as it was
			}
			last = line
			_, err := fmt.Fprintln(f.stdout, line)
			return err
		case "warning":
			_, err := fmt.Fprintf(f.stderr, "tunnox: %s%s\n", before, oneLine(n.Message))
			return err
		case "offline":
			_, err := fmt.Fprintf(f.stderr, "tunnox: %sthe server is away; trying on\n", before)
			return err
		case "online":
			_, err := fmt.Fprintf(f.stderr, "tunnox: %sconnected again\n", before)
			return err
		}
		return nil
	}
}

// eachLine is oneLine for each line of a text of ours with words of others in it.
func eachLine(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = oneLine(line)
	}
	return strings.Join(lines, "\n")
}
