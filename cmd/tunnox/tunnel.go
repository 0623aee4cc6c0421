package main

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
)

// tunnelCommands are those that hold one tunnel in the foreground.
func tunnelCommands(s surroundings) []*cobra.Command {
	return []*cobra.Command{tcpCommand(s), exposeCommand(s), getCommand(s), forwardCommand(s)}
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

// serviceParts are the parts of a mapping that name the service: PORT, or HOST:PORT.
func serviceParts(text string) (map[string]any, error) {
	host, port := "127.0.0.1", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return nil, usageError("%q is no service: want a port such as 3000, or HOST:PORT", text)
		}
	}
	if host == "" {
		host = "127.0.0.1"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, usageError("%q is no service: the port is a number from 1 to 65535", text)
	}
	return map[string]any{"target_host": host, "target_port": n}, nil
}

// listenParts are the parts of a mapping that say where it listens here.
func listenParts(parts map[string]any, text string) error {
	host, port := "", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return usageError("%q is no address to listen on: want PORT, or ADDRESS:PORT", text)
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return usageError("%q is no address to listen on: the port is a number from 1 to 65535", text)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host != "" {
		parts["local_host"] = host
	}
	parts["local_port"] = n
	return nil
}

func serviceText(parts map[string]any) string {
	return net.JoinHostPort(fmt.Sprint(parts["target_host"]), fmt.Sprint(parts["target_port"]))
}

func tcpCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var port int
	var name string
	cmd := &cobra.Command{Use: "tcp SERVICE", Short: "Give a TCP service of this machine a public address",
		Long: `Give a TCP service of this machine a public address, for as long as this program
runs. SERVICE is a port of this machine, or HOST:PORT that this machine reaches.

The server needs public ports: tunnoxd serve --public-ports FROM-TO.

` + foregroundCodes,
		Example: "  tunnox tcp 22\n  tunnox tcp 192.168.1.10:3389 --port 20005",
		Args:    oneArgument("the service, a port such as 22 or HOST:PORT")}
	f.declare(cmd)
	cmd.Flags().IntVar(&port, "port", 0, "public `port` to have; 0 = one is chosen")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		parts, err := serviceParts(args[0])
		if err != nil {
			return err
		}
		if port < 0 || port > 65535 {
			return usageError("--port %d: want 1 to 65535, or 0 to have one chosen", port)
		}
		parts["public_port"] = port
		if name != "" {
			parts["name"] = name
		}
		return f.hold(cmd.Context(), agent.Tunnel{Kind: agent.TunnelPublic, Protocol: "tcp", Parts: parts}, f.shown(func(n agent.TunnelNews) (any, string) {
			address := n.Mapping.PublicAddress
			return map[string]string{"address": address}, fmt.Sprintf("ready: %s -> %s", address, serviceText(parts))
		}))
	}
	return cmd
}

func exposeCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var expires lifetime
	var uses uint32
	var name string
	cmd := &cobra.Command{Use: "expose SERVICE", Short: "Share a service of this machine with whoever you give the code",
		Long: `Share a service of this machine with whoever you give the code that this prints.
They run tunnox get CODE and have the service on a port of their machine; nothing
of it is public. It lasts as long as this program runs. SERVICE is a port of this
machine, or HOST:PORT that this machine reaches.

` + foregroundCodes,
		Example: "  tunnox expose 5432\n  tunnox expose db.internal:5432 --uses 3 --expires 2d",
		Args:    oneArgument("the service, a port such as 5432 or HOST:PORT")}
	f.declare(cmd)
	f.declareServer(cmd)
	cmd.Flags().Var(&expires, "expires", "after so `long` the code is good no more, for example 36h or 2d (default 1h)")
	cmd.Flags().Uint32Var(&uses, "uses", 1, "how `often` the code is good")
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		parts, err := serviceParts(args[0])
		if err != nil {
			return err
		}
		if name != "" {
			parts["name"] = name
		}
		if uses == 0 {
			return usageError("--uses 0: want 1 or more")
		}
		seconds := uint32(3600)
		if at := expires.end(); at != nil {
			seconds = uint32(time.Until(*at).Round(time.Second) / time.Second)
		}
		return f.hold(cmd.Context(), agent.Tunnel{Kind: agent.TunnelExpose, Protocol: "tcp", Parts: parts, Uses: uses, Seconds: seconds}, f.shown(func(n agent.TunnelNews) (any, string) {
			good := "once"
			if uses > 1 {
				good = fmt.Sprintf("%d times", uses)
			}
			return map[string]any{"code": n.Code, "expires": n.Expires}, fmt.Sprintf("ready: %s is shared while this program runs. On the other machine:\n  tunnox get %s%s\nThe code is good %s, until %s.",
				serviceText(parts), n.Code, f.serverWord(), good, timeText(n.Expires))
		}))
	}
	return cmd
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
		parts := map[string]any{}
		if name != "" {
			parts["name"] = name
		}
		if listen != "" {
			if err := listenParts(parts, listen); err != nil {
				return err
			}
		}
		return f.hold(cmd.Context(), agent.Tunnel{Kind: agent.TunnelGet, Parts: parts, Code: code}, f.shown(func(n agent.TunnelNews) (any, string) {
			what := "what was shared"
			if n.Mapping.Name != "" {
				what = n.Mapping.Name
			}
			return map[string]string{"listen": n.Listen}, fmt.Sprintf("ready: %s -> %s", n.Listen, what)
		}))
	}
	return cmd
}

func forwardCommand(s surroundings) *cobra.Command {
	f := &foreground{surroundings: s}
	var name string
	cmd := &cobra.Command{Use: "forward LISTEN CLIENT:SERVICE", Short: "Have a service of another machine of yours on a port of this one",
		Long: `Listen on this machine, for as long as this program runs, for a service of another
machine of yours. CLIENT is the other machine, by its name or id; SERVICE is a port
there, or HOST:PORT that it reaches and allows. tunnox agent runs on that machine.

` + foregroundCodes,
		Example: "  tunnox forward 5433 datacentre:5432\n  tunnox forward 0.0.0.0:8080 office:printer.local:80",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError("want where to listen and what for: %s", cmd.UseLine())
			}
			return nil
		}}
	f.declare(cmd)
	cmd.Flags().StringVar(&name, "name", "", "`name` for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, service, ok := strings.Cut(args[1], ":")
		if !ok || client == "" {
			return usageError("%q: want CLIENT:PORT or CLIENT:HOST:PORT", args[1])
		}
		parts, err := serviceParts(service)
		if err != nil {
			return err
		}
		if err := listenParts(parts, args[0]); err != nil {
			return err
		}
		if name != "" {
			parts["name"] = name
		}
		return f.hold(cmd.Context(), agent.Tunnel{Kind: agent.TunnelForward, Protocol: "tcp", Target: client, Parts: parts}, f.shown(func(n agent.TunnelNews) (any, string) {
			return map[string]string{"listen": n.Listen}, fmt.Sprintf("ready: %s -> %s:%s", n.Listen, oneLine(client), oneLine(service))
		}))
	}
	return cmd
}

// shown prints what happens to a tunnel: that it is ready on standard output, and the
// rest beside it. With --json the first is one line of JSON, and the only one.
func (f *foreground) shown(ready func(agent.TunnelNews) (asJSON any, text string)) func(agent.TunnelNews) error {
	last := ""
	return func(n agent.TunnelNews) error {
		switch n.Event {
		case "ready":
			value, text := ready(n)
			line := text
			if f.json {
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
			_, err := fmt.Fprintf(f.stderr, "tunnox: %s\n", oneLine(n.Message))
			return err
		case "offline":
			_, err := fmt.Fprintln(f.stderr, "tunnox: the server is away; trying on")
			return err
		case "online":
			_, err := fmt.Fprintln(f.stderr, "tunnox: connected again")
			return err
		}
		return nil
	}
}
