package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/agent"
)

// knowledge is what the agent of this machine and its server know of the machine's
// tunnels.
type knowledge struct {
	agent    agent.Status
	mappings []agent.LocalMapping
	names    map[int64]string // of the user's clients
}

// ask reads it from the agent's socket. Only an agent that is connected can ask its
// server, so without a session there are no mappings and no names.
func (k *knowledge) ask(ctx context.Context, c *restClient) error {
	b, err := c.call(ctx, "GET", "/status", nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &k.agent); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	if !k.agent.Online {
		return nil
	}
	return k.askServer(ctx, c)
}

func (k *knowledge) askServer(ctx context.Context, c *restClient) error {
	mappings, err := c.list(ctx, "/mappings", 0, 0)
	if err != nil {
		return err
	}
	clients, err := c.list(ctx, "/clients", 0, 0)
	if err != nil {
		clients = page{} // an anonymous client has no user, and may not ask
	}
	k.mappings, k.names = nil, map[int64]string{}
	for _, item := range mappings.Items {
		var m agent.LocalMapping
		if err := json.Unmarshal(item, &m); err != nil {
			return fmt.Errorf("read the agent's answer: %w", err)
		}
		k.mappings = append(k.mappings, m)
	}
	for _, item := range clients.Items {
		var client agent.LocalClient
		if err := json.Unmarshal(item, &client); err != nil {
			return fmt.Errorf("read the agent's answer: %w", err)
		}
		k.names[client.ClientID] = client.Name
	}
	return nil
}

// machine gives the name of a client, for people.
func (k *knowledge) machine(id int64) string {
	return cmp.Or(k.names[id], "client "+strconv.FormatInt(id, 10))
}

// from is where the connections of a mapping come in, seen from this machine.
func (k *knowledge) from(m agent.LocalMapping) string {
	switch {
	case m.PublicAddress != "":
		return m.PublicAddress
	case m.SourceClientID == k.agent.ClientID:
		return net.JoinHostPort(m.LocalHost, strconv.Itoa(int(m.LocalPort)))
	case m.SourceClientID == 0:
		return "a public address"
	}
	return k.there(m.SourceClientID, m.LocalHost, m.LocalPort)
}

// to is where they go.
func (k *knowledge) to(m agent.LocalMapping) string {
	switch {
	case m.Target != "" && m.TargetClientID == k.agent.ClientID: // unix:PATH or file:PATH
		return m.Target
	case m.Target != "":
		return k.machine(m.TargetClientID) + ":" + m.Target
	case m.TargetHost == "" && m.TargetClientID == k.agent.ClientID:
		return "what the client of " + m.Protocol + " asks for"
	case m.TargetHost == "":
		return k.machine(m.TargetClientID) + " (" + m.Protocol + ")"
	case m.TargetClientID == k.agent.ClientID:
		service := net.JoinHostPort(m.TargetHost, strconv.Itoa(int(m.TargetPort)))
		var scheme string
		if json.Unmarshal(m.Options["target_scheme"], &scheme) == nil && scheme != "" {
			service = scheme + "://" + service
		}
		return service
	}
	return k.there(m.TargetClientID, m.TargetHost, m.TargetPort)
}

// there is an address at another machine, as tunnox forward takes it.
func (k *knowledge) there(client int64, host string, port uint32) string {
	text := strconv.Itoa(int(port))
	if host != "127.0.0.1" {
		text = net.JoinHostPort(host, text)
	}
	return k.machine(client) + ":" + text
}

// way is a tunnel in one line.
func (k *knowledge) way(m agent.LocalMapping) string { return k.from(m) + " -> " + k.to(m) }

// listener gives the listener that this machine has for a mapping, nil for none.
func (k *knowledge) listener(mapping int64) *agent.ListenerStatus {
	for i, l := range k.agent.Listeners {
		if l.MappingID == mapping {
			return &k.agent.Listeners[i]
		}
	}
	return nil
}

// held tells whether a program in the foreground holds a mapping.
func (k *knowledge) held(mapping int64) bool {
	return slices.ContainsFunc(k.agent.Tunnels, func(t agent.TunnelStatus) bool { return slices.Contains(t.Mappings, mapping) })
}

// announcer prints what an agent that runs for long has ready, each thing once.
type announcer struct {
	f    *localFlags
	c    *restClient
	last map[int64]string // by mapping
	said bool             // that the agent is connected
}

// announce prints what is new since it was called last.
func (a *announcer) announce(ctx context.Context) {
	k := &knowledge{}
	if err := k.ask(ctx, a.c); err != nil || !k.agent.Online {
		return // it is asked again with the next change; the log has the reason
	}
	now, lines := map[int64]string{}, []string{}
	for _, m := range k.mappings {
		l := k.listener(m.MappingID)
		here := l != nil && l.Error == "" || m.SourceClientID == 0 && m.Status == "active"
		if !here || k.held(m.MappingID) {
			continue // the program that holds it has said so itself
		}
		now[m.MappingID] = k.way(m)
		if a.last[m.MappingID] != now[m.MappingID] {
			lines = append(lines, "ready: "+now[m.MappingID])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.last)) {
		if now[id] == "" {
			lines = append(lines, "ended: "+a.last[id])
		}
	}
	if !a.said {
		text := fmt.Sprintf("ready: %s is connected to %s as client %d", cmp.Or(k.names[k.agent.ClientID], "this machine"), strings.Join(k.agent.Servers, ", "), k.agent.ClientID)
		lines = append([]string{text + a.idle(k)}, lines...)
		a.said = true
	}
	a.last = now
	for _, line := range lines {
		fmt.Fprintln(a.f.stdout, oneLine(line))
	}
}

// idle says what an agent without listeners is there for.
func (a *announcer) idle(k *knowledge) string {
	if len(k.agent.Listeners) > 0 {
		return ""
	}
	return "; " + k.noListener()
}

// noListener is for an agent that no mapping asks to listen.
func (k *knowledge) noListener() string {
	text := "no mapping asks this machine for a listener"
	leading := 0
	for _, m := range k.mappings {
		if m.TargetClientID == k.agent.ClientID {
			leading++
		}
	}
	switch {
	case leading == 1:
		text += ", and 1 mapping leads to a service here"
	case leading > 1:
		text += fmt.Sprintf(", and %d mappings lead to services here", leading)
	}
	return text
}

// listenersMissing is noListener for who has not asked the agent yet.
func (k *knowledge) listenersMissing(ctx context.Context, c *restClient) string {
	_ = k.ask(ctx, c) // without an answer less is known, which the sentence is right for
	return k.noListener()
}
