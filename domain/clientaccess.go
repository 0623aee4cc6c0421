package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Commands says whose agents may have connections led to a client. An agent's credential
// lies on its machine, and whoever takes it from there can command what the agent can. So
// one machine that was taken over must not open the other machines of its user.
//
// Commands bounds what agents ask for over their sessions. What users ask for over the
// API, and mappings that exist, are not touched.
type Commands string

// The values of Commands.
const (
	// CommandsNone: no agent. The client's own agent can command nothing at all.
	CommandsNone Commands = "none"
	// CommandsOwn: the client's own agent. A new client begins with it.
	CommandsOwn Commands = "own"
	// CommandsAll: the agents of all clients of its user.
	CommandsAll Commands = "all"
)

var allCommands = []Commands{CommandsNone, CommandsOwn, CommandsAll}

// ClientCommandsSet says from now on whose agents may have connections led to the client.
type ClientCommandsSet struct {
	Commands Commands `json:"commands"`
}

// EventName implements [Event].
func (ClientCommandsSet) EventName() string { return "client_commands_set" }

func (f *faults) commands(c Commands) {
	if !slices.Contains(allCommands, c) {
		f.add("commands", fmt.Sprintf("must be none, own or all, is %q", string(c)))
	}
}

// Commanding refuses a client whose agent can command nothing.
func (c *Client) Commanding() error {
	if c.Commands == CommandsNone {
		return refuse(CodeCommandsRefused, fmt.Sprintf("The agent of this client can command nothing. Its user can allow it: tunnox client update %d --commands own", c.ID))
	}
	return nil
}

// reachedFor refuses to lead connections to a client for the agent of another one.
func (c *Client) reachedFor(commander int64, field string) error {
	if commander == 0 || c.ID == commander || c.Commands == CommandsAll {
		return nil
	}
	return refuseAt(CodeCommandsRefused, fmt.Sprintf("Client %d does not let agents of other clients lead connections to it. Its user can allow it: tunnox client update %[1]d --commands all", c.ID), field)
}

// By gives the command as asked for by the agent of a client.
func (c CreateMapping) By(client int64) CreateMapping {
	c.commander = client
	return c
}

// By gives the command as asked for by the agent of a client.
func (c CreateShare) By(client int64) CreateShare {
	c.commander = client
	return c
}

// By gives the command as asked for by the agent of a client.
func (c RedeemShare) By(client int64) RedeemShare {
	c.commander = client
	return c
}

// commanded refuses what the agent of a client may not ask for: a mapping of which its
// client is not the source, and one that leads to a client which does not allow it.
func (s States) commanded(commander int64, m Mapping) error {
	if commander == 0 {
		return nil
	}
	if err := s.commanding(commander); err != nil {
		return err
	}
	if m.SourceClientID != commander && m.SourceClientID != 0 {
		return refuseAt(CodeClientNotOwned, "An agent makes mappings of which its client is the source, or public ones that lead to it.", "source_client_id")
	}
	if err := s.client(m.TargetClientID).reachedFor(commander, "target_client_id"); err != nil {
		return err
	}
	for i, t := range m.Targets {
		if err := s.client(t.ClientID).reachedFor(commander, fmt.Sprintf("targets[%d].client_id", i)); err != nil {
			return err
		}
	}
	return nil
}

// commanding refuses the agent of a client that can command nothing.
func (s States) commanding(commander int64) error {
	if commander == 0 {
		return nil
	}
	c, err := s.liveClient(commander)
	if err != nil {
		return err
	}
	return c.Commanding()
}

// reachedByAll upcasts a client from before there were [Commands]: agents of all clients
// of its user could have connections led to it.
func reachedByAll(data json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("want a JSON object")
	}
	fields["commands"] = json.RawMessage(`"` + CommandsAll + `"`)
	return json.Marshal(fields)
}
