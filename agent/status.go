package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// Status is what an agent does now.
type Status struct {
	ClientID  int64            `json:"client_id"` // 0 = not registered yet
	Version   string           `json:"version"`
	Servers   []string         `json:"servers"` // those that the agent was told, host:port
	Online    bool             `json:"online"`
	Sessions  []SessionStatus  `json:"sessions"`
	Listeners []ListenerStatus `json:"listeners"`
	Tunnels   []TunnelStatus   `json:"tunnels"`   // of programs in the foreground
	Datagrams DatagramStatus   `json:"datagrams"` // of all udp mappings, at either end
	// SOCKSRefused counts the clients of socks5 mappings that got no connection.
	SOCKSRefused int64 `json:"socks_refused"`
	// Transports is what came of the latest attempt over each.
	Transports []TransportStatus `json:"transports"`
	Fenced     *Fence            `json:"fenced,omitempty"` // another agent has its identity
	// Distrust is what the server has shown of its log that cannot be right; "" = nothing.
	Distrust string `json:"distrust,omitempty"`
}

// SessionStatus is one session of an agent.
type SessionStatus struct {
	Node    string `json:"node"`
	Session string `json:"session"`
	Leaving bool   `json:"leaving"` // it takes nothing new
	// Transport carries the session: tls, quic, wss or ws.
	Transport string `json:"transport"`
	// Lanes is how many streams have gone on over connections of their own.
	Lanes int `json:"lanes"`
	// RoundTrip is in milliseconds, measured now; null if there was no answer within a second.
	RoundTrip *float64  `json:"round_trip_ms"`
	Since     time.Time `json:"since"`
}

// TransportStatus is what came of the latest attempt over a transport.
type TransportStatus struct {
	Transport string    `json:"transport"`
	At        time.Time `json:"at"`
	Error     string    `json:"error,omitempty"` // why it gave no session
}

// ListenerStatus is one listener that the agent's mappings ask for.
type ListenerStatus struct {
	MappingID   int64  `json:"mapping_id"`
	Address     string `json:"address"`
	Connections int    `json:"connections"`
	Error       string `json:"error,omitempty"` // why it is not open
}

// TunnelStatus is a tunnel that a program in the foreground of this machine holds.
type TunnelStatus struct {
	ID       int64      `json:"id"`
	Kind     TunnelKind `json:"kind"`
	Service  string     `json:"service,omitempty"` // host:port at this machine
	Mappings []int64    `json:"mapping_ids"`
	ShareID  int64      `json:"share_id,omitempty"`
	Since    time.Time  `json:"since"`
}

// DatagramStatus are the numbers of flows since the agent began.
type DatagramStatus struct {
	Flows   int64 `json:"flows"` // now
	Carried int64 `json:"carried"`
	Dropped int64 `json:"dropped"` // a stream was too slow, or the system did not take them
	Refused int64 `json:"refused"` // too many flows, or what they lead to was refused
}

// Status tells what the agent does now.
func (a *Agent) Status() Status {
	s := Status{ClientID: a.identityID(), Version: a.version, Servers: a.servers, Tunnels: a.tunnels.status(), Sessions: a.sessions.status(), Listeners: a.listeners.status(), Fenced: a.fence.get()}
	s.Online = len(s.Sessions) > 0
	s.Transports = []TransportStatus{}
	if a.tries != nil {
		s.Transports = append(s.Transports, a.tries()...)
	}
	if a.seals != nil && a.seals.proofs != nil {
		if err := a.seals.proofs.trouble(); err != nil {
			s.Distrust = err.Error()
		}
	}
	s.SOCKSRefused = a.socksRefused.Load()
	d := &a.datagrams
	s.Datagrams = DatagramStatus{Flows: d.Open.Load(), Carried: d.Carried.Load(), Dropped: d.Dropped.Load(), Refused: d.Refused.Load()}
	return s
}

// identityID gives the client id that the agent has, connected or not.
func (a *Agent) identityID() int64 {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	return a.identity.ClientID
}

// list copies the sessions.
func (ss *sessions) list() []*session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return slices.Clone(ss.all)
}

// pingLimit is how long a question for the status waits for a forwarder.
const pingLimit = time.Second

// status asks all forwarders at the same time for a round trip.
func (ss *sessions) status() []SessionStatus {
	sessions := ss.list()
	all := make([]SessionStatus, len(sessions))
	ctx, cancel := context.WithTimeout(context.Background(), pingLimit)
	defer cancel()
	var asked sync.WaitGroup
	for i, s := range sessions {
		asked.Go(func() {
			all[i] = SessionStatus{Node: s.node, Session: s.id, Transport: transport.SchemeOf(s.link), Since: s.since, Lanes: s.lanes.count()}
			if took, err := s.link.Ping(ctx); err == nil {
				ms := float64(took.Microseconds()) / 1000
				all[i].RoundTrip = &ms
			}
		})
	}
	asked.Wait()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for i, s := range sessions {
		all[i].Leaving = s.leaving
	}
	return all
}

func (ls *listeners) status() []ListenerStatus {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	all := []ListenerStatus{}
	for _, id := range slices.Sorted(maps.Keys(ls.wanted.listeners)) {
		l := ListenerStatus{MappingID: id, Address: addressOf(ls.wanted.listeners[id]), Error: ls.failed[id].GetMessage()}
		if open := ls.open[id]; open != nil {
			l.Connections = len(open.conns)
		}
		all = append(all, l)
	}
	return all
}
