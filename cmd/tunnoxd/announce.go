package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/transport"
)

// announcement is the message that a process prints when it is running.
type announcement struct {
	key      *apiKey // nil in a role without an API
	pin      transport.Pin
	joinable bool     // forwarders of other processes may join
	join     string   // the command that joins a machine; "" = not the first start
	servers  []string // where agents connect, for a process without a listener for them
}

// announce prints the next steps: all of them at the first start, the most needed ones
// at later starts.
func (p *process) announce(a announcement) error {
	var b strings.Builder
	bound := p.sockets.addresses()
	if p.sockets.agents != nil {
		a.servers = []string{reachable(p.cfg.AdvertiseAgents, p.sockets.agents.Addr())}
	}
	agents, forwarder := a.agentsLine(), ""
	if a.joinable {
		forwarder = p.forwarderLine()
	}
	switch {
	case a.key != nil && p.dir.fresh:
		fmt.Fprintf(&b, `Tunnox %s is running. This is its first start in %s.

  API        http://%s
  API docs   http://%s/docs
  API key    %s (whoever has it may do everything)
  Metrics    http://%s/metrics
%s`, shortVersion(), p.dir.path, bound["api"], bound["api"], a.key.source, bound["metrics"], p.visitorLines())
		if forwarder != "" {
			fmt.Fprintf(&b, `
Start a forwarder, with a copy of the join token that only its account can read:

  %s
`, forwarder)
		}
		if a.join != "" {
			fmt.Fprintf(&b, `
Join a machine to this server, on that machine; it is in %s too,
and good for %d machines in %d days:

  %s

More invitations: tunnox invite create --user %d
`, p.dir.file("join"), firstInviteUses, int(firstInviteTime/(24*time.Hour)), a.join, firstUserID)
		}
		if agents != "" {
			unknown := "An agent without them is refused: see --anonymous."
			if p.cfg.Anonymous == "on" {
				unknown = "An agent without them becomes an anonymous client."
			}
			fmt.Fprintf(&b, `
Without an invitation: create a client over the API, and start its agent with this
line, --client-id and --auth-code-file:

  %s

%s
`, agents, unknown)
		}
	case a.key != nil:
		fmt.Fprintf(&b, "Tunnox %s is running. API http://%s, docs http://%s/docs, API key in %s\n",
			shortVersion(), bound["api"], bound["api"], a.key.source)
	default:
		fmt.Fprintf(&b, "Tunnox %s forwarder is running. Agents connect to %s\n", shortVersion(), bound["agents"])
	}
	if a.key == nil || !p.dir.fresh {
		if forwarder != "" {
			fmt.Fprintf(&b, "Forwarder: %s\n", forwarder)
		}
		if agents != "" {
			fmt.Fprintf(&b, "Join: %s\n", agents)
		}
	}
	p.sayGuesses()
	p.up.Store(true) // before the message: a reader of the message may probe at once
	_, err := p.out.Write([]byte(b.String()))
	return err
}

// agentsLine gives the command that joins an agent.
func (a announcement) agentsLine() string {
	if a.pin == (transport.Pin{}) {
		return ""
	}
	server := cmp.Or(strings.Join(a.servers, ","), "FORWARDER:8080")
	return fmt.Sprintf("tunnox agent --server %s --pin %s", server, a.pin)
}

// forwarderLine gives the command that joins a forwarder. It shows no password.
func (p *process) forwarderLine() string {
	redis := "URL"
	if u, err := url.Parse(p.cfg.Redis); err == nil {
		redis = u.Redacted()
	}
	return fmt.Sprintf("tunnoxd forwarder --data DIR --control %s --join-token-file %s --redis %s",
		reachable("", p.sockets.state.Addr()), p.dir.file("join-token"), redis)
}

// sayGuesses logs which of this machine's addresses others get, if no setting names
// one.
func (p *process) sayGuesses() {
	for flag, l := range map[string]struct {
		advertise string
		listener  net.Listener
	}{"advertise-agents": {p.cfg.AdvertiseAgents, p.sockets.agents}, "advertise-bridge": {p.cfg.AdvertiseBridge, p.sockets.bridge}} {
		if l.listener != nil && guessed(l.advertise, l.listener.Addr()) {
			p.log.Info("every address of this machine is bound, and others are told its first; choose with --"+flag,
				"address", reachable("", l.listener.Addr()))
		}
	}
	if p.sockets.state != nil && loopback(p.sockets.state.Addr().String()) {
		p.log.Info("forwarders of other machines cannot reach the State service; choose with --state", "address", p.sockets.state.Addr().String())
	}
}

// agentsServers gives the addresses for agents of running forwarders, in order: only a
// few, because people paste the line.
func (p *process) agentsServers(ctx context.Context, nodes directory.Nodes) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	up, err := nodes.Nodes(ctx)
	if err != nil {
		p.log.Warn("cannot ask the directory for forwarders", "error", err)
	}
	var servers []string
	for _, n := range up {
		if n.Agents != "" && n.State == directory.NodeActive && len(servers) < 3 {
			servers = append(servers, n.Agents)
		}
	}
	return servers
}
