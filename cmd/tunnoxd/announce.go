package main

import (
	"fmt"
	"strings"
)

// announce tells people how to go on: at the first start all of it, at later
// ones what is asked for most. key is nil in a role without an API.
func (p *process) announce(key *apiKey, id identity) error {
	var b strings.Builder
	join := ""
	if p.sockets.agents != nil {
		join = fmt.Sprintf("tunnox agent --server %s --pin %s", reachable(p.cfg.Advertise, p.sockets.agents.Addr()), id.pin)
	}
	bound := p.sockets.addresses()
	switch {
	case key != nil && p.dir.fresh:
		fmt.Fprintf(&b, `Tunnox %s is running. This is its first start in %s.

  API        http://%s
  API docs   http://%s/docs
  API key    %s (whoever has it may do everything)
  Metrics    http://%s/metrics
`, shortVersion(), p.dir.path, bound["api"], bound["api"], key.source, bound["metrics"])
		if join != "" {
			fmt.Fprintf(&b, `
Join an agent, on the machine it is for:

  %s

Without a client id it becomes an anonymous client. For one of a user's, create a
client over the API and add --client-id and --auth-code-file.
`, join)
		}
	case key != nil:
		fmt.Fprintf(&b, "Tunnox %s is running. API http://%s, docs http://%s/docs, API key in %s\n",
			shortVersion(), bound["api"], bound["api"], key.source)
	default:
		fmt.Fprintf(&b, "Tunnox %s forwarder is running. Agents connect to %s\n", shortVersion(), bound["agents"])
	}
	if join != "" && (key == nil || !p.dir.fresh) {
		fmt.Fprintf(&b, "Join: %s\n", join)
	}
	p.up.Store(true) // before the message: who reads it may probe at once
	_, err := p.out.Write([]byte(b.String()))
	return err
}
