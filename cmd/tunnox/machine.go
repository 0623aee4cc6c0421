package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/agent"
)

// trouble is something that is wrong, with what to do about it.
type trouble struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

// machineTunnel is one tunnel of this machine in the output of status.
type machineTunnel struct {
	MappingID   int64  `json:"mapping_id,omitempty"`
	ShareID     int64  `json:"share_id,omitempty"`
	Name        string `json:"name,omitempty"`
	Protocol    string `json:"protocol"`
	From        string `json:"from"` // an address or URL, or MACHINE:PORT
	To          string `json:"to"`
	State       string `json:"state"` // open, waiting, disabled, failed or shared
	Connections *int   `json:"connections,omitempty"`
	// Foreground is true while a program in the foreground holds it.
	Foreground bool `json:"foreground"`
}

// machineStatus is what tunnox status says about this machine.
type machineStatus struct {
	Context  string                `json:"context,omitempty"` // where there are several
	ClientID int64                 `json:"client_id"`
	Name     string                `json:"client_name,omitempty"`
	State    string                `json:"state_dir"`
	Servers  []string              `json:"servers"`
	Running  bool                  `json:"agent_running"`
	Online   bool                  `json:"online"`
	Version  string                `json:"agent_version,omitempty"`
	Sessions []agent.SessionStatus `json:"sessions"`
	Tunnels  []machineTunnel       `json:"tunnels"`
	Problems []trouble             `json:"problems"`

	noListener string
}

// machineKnown tells whether a state directory has an identity or an agent.
func machineKnown(state string) bool {
	for _, pattern := range []string{"client.json", "agent*.sock"} {
		if found, err := filepath.Glob(filepath.Join(state, pattern)); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// machine finds out how this machine is.
func (f *localFlags) machine(ctx context.Context) (*machineStatus, error) {
	m := &machineStatus{State: f.state, Servers: []string{}, Sessions: []agent.SessionStatus{}, Tunnels: []machineTunnel{}, Problems: []trouble{}}
	kept := &agent.State{File: filepath.Join(f.state, "client.json")}
	id, err := kept.Load()
	if err != nil {
		return nil, err
	}
	m.ClientID = id.ClientID
	if kept.Joined != nil {
		m.Servers = kept.Joined.Servers
	}
	c, err := f.client()
	k := &knowledge{}
	if err == nil {
		err = k.ask(ctx, c)
	}
	if coded, ok := errors.AsType[codedError](err); ok && coded.code == exitUnreachable {
		m.notRunning()
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.take(ctx, k)
	return m, nil
}

// notRunning is for a machine without an agent.
func (m *machineStatus) notRunning() {
	if m.ClientID == 0 {
		m.Problems = append(m.Problems, trouble{"this machine has not joined a server", "run tunnox join CODE, with the code of an invitation"})
		return
	}
	m.Problems = append(m.Problems, trouble{"no agent runs on this machine", "run tunnox agent"})
}

// take reads what the agent and its server say.
func (m *machineStatus) take(ctx context.Context, k *knowledge) {
	m.Running, m.Online, m.Version, m.Sessions = true, k.agent.Online, k.agent.Version, k.agent.Sessions
	m.ClientID, m.Name = cmp.Or(k.agent.ClientID, m.ClientID), k.names[k.agent.ClientID]
	if len(k.agent.Servers) > 0 {
		m.Servers = k.agent.Servers
	}
	m.noListener = k.noListener()
	m.offline(k)
	if k.agent.Distrust != "" {
		m.Problems = append(m.Problems, trouble{"the server's log of keys is not to be believed: " + k.agent.Distrust,
			"ask who runs the server whether it was restored from a backup; compare phrases with tunnox agent verify, or name keys with --peer-key"})
	}
	listed := map[int64]bool{}
	for _, mapping := range k.mappings {
		m.tunnel(k, mapping)
		listed[mapping.MappingID] = true
	}
	for i, l := range k.agent.Listeners { // those that no server tells of at this moment
		if !listed[l.MappingID] {
			m.Tunnels = append(m.Tunnels, machineTunnel{MappingID: l.MappingID, From: l.Address, To: "-", State: "open", Connections: &k.agent.Listeners[i].Connections, Foreground: k.held(l.MappingID)})
		}
		if l.Error != "" {
			m.Problems = append(m.Problems, trouble{fmt.Sprintf("%s is not open: %s", l.Address, l.Error),
				"end the program that has the address, or change the mapping; the agent tries again"})
		}
	}
	for _, t := range k.agent.Tunnels {
		if t.ShareID != 0 {
			m.Tunnels = append(m.Tunnels, machineTunnel{ShareID: t.ShareID, Protocol: "tcp", From: "who has the code", To: t.Service, State: "shared", Foreground: true})
		}
	}
	m.services(ctx, k)
}

// offline says why the agent is not connected.
func (m *machineStatus) offline(k *knowledge) {
	switch {
	case k.agent.Fenced != nil:
		m.Problems = append(m.Problems, trouble{"another agent has this identity: " + k.agent.Fenced.By,
			fmt.Sprintf("end one of them; if this machine is a copy, delete %s and join again; this agent tries again at %s", filepath.Join(m.State, "client.json"), timeText(k.agent.Fenced.Until))})
	case !k.agent.Online:
		why := ""
		for _, t := range k.agent.Transports {
			if t.Error != "" {
				why = ": " + t.Error
				break
			}
		}
		m.Problems = append(m.Problems, trouble{"the agent is not connected to " + strings.Join(m.Servers, ", ") + why,
			"see whether the server runs and this machine can reach it; the agent tries again by itself"})
	}
}

func (m *machineStatus) tunnel(k *knowledge, mapping agent.LocalMapping) {
	t := machineTunnel{MappingID: mapping.MappingID, Name: mapping.Name, Protocol: mapping.Protocol, From: k.from(mapping), To: k.to(mapping), State: "open", Foreground: k.held(mapping.MappingID)}
	l := k.listener(mapping.MappingID)
	switch {
	case mapping.Status != "active":
		t.State = mapping.Status
	case l != nil && l.Error != "":
		t.State = "failed"
	case l != nil:
		t.Connections = &l.Connections
	case mapping.SourceClientID == k.agent.ClientID:
		t.State = "waiting" // the server has not told this agent to listen yet
	}
	m.Tunnels = append(m.Tunnels, t)
}

// serviceTrial bounds how long a service of this machine may take to be connected to.
const serviceTrial = time.Second

// services tries the services of this machine that speak TCP, all at the same time.
func (m *machineStatus) services(ctx context.Context, k *knowledge) {
	addresses := map[string]bool{}
	for _, mapping := range k.mappings {
		ip := net.ParseIP(mapping.TargetHost)
		if mapping.TargetClientID == k.agent.ClientID && mapping.Protocol != "udp" && mapping.Status == "active" && (mapping.TargetHost == "localhost" || ip.IsLoopback()) {
			addresses[net.JoinHostPort(mapping.TargetHost, strconv.Itoa(int(mapping.TargetPort)))] = true
		}
	}
	var mu sync.Mutex
	var tries sync.WaitGroup
	for address := range addresses {
		tries.Go(func() {
			conn, err := (&net.Dialer{Timeout: serviceTrial}).DialContext(ctx, "tcp", address)
			if err == nil {
				_ = conn.Close()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			m.Problems = append(m.Problems, trouble{"nothing listens on " + address, "start the service there, or change the mapping that leads to it"})
		})
	}
	tries.Wait()
}

// print prints it for people, or as JSON.
func (m *machineStatus) print(out io.Writer) error {
	who := "not joined"
	if m.ClientID != 0 {
		who = fmt.Sprintf("client %d", m.ClientID)
		if m.Name != "" {
			who = m.Name + ", " + who
		}
	}
	state := "not running"
	switch {
	case m.Online:
		state = "connected"
	case m.Running:
		state = "running, not connected"
	}
	if m.Context != "" {
		fmt.Fprintf(out, "context  %s\n", oneLine(m.Context))
	}
	fmt.Fprintf(out, "machine  %s\nserver   %s\nagent    %s\n", oneLine(who), oneLine(cmp.Or(strings.Join(m.Servers, ", "), "-")), state)
	if m.Version != "" {
		fmt.Fprintf(out, "version  %s\n", oneLine(m.Version))
	}
	if m.Running {
		if err := m.printTables(out); err != nil {
			return err
		}
	}
	if len(m.Problems) > 0 {
		fmt.Fprintln(out)
	}
	for _, p := range m.Problems {
		if _, err := fmt.Fprintf(out, "wrong: %s\n   do: %s\n", oneLine(p.What), oneLine(p.Do)); err != nil {
			return err
		}
	}
	return nil
}

func (m *machineStatus) printTables(out io.Writer) error {
	if len(m.Sessions) > 0 {
		fmt.Fprintln(out)
		if err := printValues(out, []column{field("NODE", "node"), field("TRANSPORT", "transport"), {"ROUND TRIP", roundTrip}, field("SINCE", "since"), field("LEAVING", "leaving")}, m.Sessions); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	if len(m.Tunnels) == 0 {
		_, err := fmt.Fprintf(out, "no tunnels: %s\n", m.noListener)
		return err
	}
	return printValues(out, []column{{"TUNNEL", func(o object) string { return o.text("from") + " -> " + o.text("to") }},
		field("PROTOCOL", "protocol"), field("CONNECTIONS", "connections"), field("STATE", "state"),
		{"HELD BY", func(o object) string {
			if o["foreground"] == true {
				return "a program here"
			}
			return "-"
		}}, field("NAME", "name"), field("MAPPING", "mapping_id")}, m.Tunnels)
}

func roundTrip(o object) string {
	if ms := o.text("round_trip_ms"); ms != "-" {
		return ms + " ms"
	}
	return "no answer"
}

// printValues is printTable for values of ours.
func printValues[V any](out io.Writer, columns []column, values []V) error {
	items := make([]json.RawMessage, len(values))
	for i, value := range values {
		b, err := json.Marshal(value)
		if err != nil {
			return err
		}
		items[i] = b
	}
	return printTable(out, columns, items)
}

// stateGiven tells whether somebody named the state directory.
func (f *localFlags) stateGiven() bool { return f.state != "" || f.variable("TUNNOX_STATE") != "" }

// err is for the exit code: what is wrong has been printed.
func (m *machineStatus) err() error {
	switch n := len(m.Problems); n {
	case 0:
		return nil
	case 1:
		return errors.New("1 thing is wrong with this machine")
	default:
		return fmt.Errorf("%d things are wrong with this machine", n)
	}
}
